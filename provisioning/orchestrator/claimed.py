"""The claimed workflows as one process sees them: which of them want a holder. Those at rest cost nothing."""

from __future__ import annotations

from provisioning.core.states import ENDED_WORKFLOWS, TaskState, WorkflowState
from provisioning.core.workflow import WorkflowCheckpoint
from provisioning.errors import ProvisioningError
from provisioning.storage.active import active_ids, unname_active
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import Spool


def is_at_rest(checkpoint: WorkflowCheckpoint, *, running: bool) -> bool:
    """Whether a workflow wants no holder: it has ended, or is merely paused and no attempt of it is under way.

    One that is being cancelled wants its end, paused or not: the request for it may be applied and gone.
    """
    paused = checkpoint.state is WorkflowState.PAUSED and not checkpoint.cancelling and not running
    return paused or checkpoint.state in ENDED_WORKFLOWS


class Claimed:
    """Looks once at every claimed workflow, then only at those that were not at rest or have been taken since.

    Whoever takes a workflow names it in `locks/active/` before anything of it changes.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._found: set[str] | None = None
        """Workflows that were not at rest when they were looked at last, named or not; None before the first look."""

    def ids(self) -> list[str]:
        """The workflows that may want a holder, oldest first."""
        if self._found is None:
            self._found = {each for each in self._spool.claimed_ids() if not self._rests_for_sure(each)}
        return sorted({*self._found, *active_ids(self._spool.root)})

    def _rests_for_sure(self, workflow_id: str) -> bool:
        try:
            return _rests(self._spool.workflow(workflow_id))
        except (ProvisioningError, OSError):
            return False

    def wants_holder(self, workflow_id: str) -> bool:
        """Whether the workflow is there and not at rest; raises what reading its files does."""
        if not _rests(self._spool.workflow(workflow_id)):
            return True
        if self._found is not None:
            self._found.discard(workflow_id)
        self._unname(workflow_id)
        return False

    def _unname(self, workflow_id: str) -> None:
        """Take away the name that a killed process has left; under the lock, as somebody may be setting it going."""
        lock = self._spool.lock(workflow_id)
        if lock is None:
            if self._spool.folder_path(workflow_id) is None:
                unname_active(self._spool.root, workflow_id)
            return
        try:
            if _rests(self._spool.workflow(workflow_id)):
                unname_active(self._spool.root, workflow_id)
        finally:
            lock.release()


def _rests(folder: WorkflowFolder) -> bool:
    checkpoint = folder.workflow()
    if checkpoint is None:
        return not folder.path.is_dir()
    if is_at_rest(checkpoint, running=True):
        return True
    return is_at_rest(checkpoint, running=False) and not any(task.state is TaskState.RUNNING for task in folder.tasks())
