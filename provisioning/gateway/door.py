"""What the gateway needs of whoever knows the rules of the spool's doors; it has no rules of its own."""

from __future__ import annotations

from typing import Protocol

from provisioning.storage.checkpoint import WorkflowFolder


class Door(Protocol):
    """Who may what, and the two things that are ever put into the spool."""

    own: str
    """The user who works the spool: may do everything."""

    def admits(self, operator: str) -> bool:
        """Whether this operator may ask anything at all."""

    def may_know(self, operator: str, folder: WorkflowFolder) -> bool:
        """Whether the workflow is this operator's matter."""

    def submit(self, operator: str, manifest: bytes, form: str) -> str:
        """Put in a manifest, `toml` or `json`, durably; its workflow_id. A ProvisioningError says why not."""

    def ask(
        self, operator: str, verb: str, workflow_id: str, *, tasks: tuple[str, ...] = (), preserve: tuple[str, ...] = ()
    ) -> None:
        """Ask it of the workflow, durably. A ProvisioningError says why not; then nothing was asked."""

    def declined(self, who: str, code: str, call: str, times: int) -> None:
        """Keep in the audit log that somebody was not let in. SpoolUnusable where that cannot be kept."""
