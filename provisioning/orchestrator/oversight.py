"""The gate of a spool with doors for others: grants are asked at each start, the audit log kept, attempts counted."""

from __future__ import annotations

import contextlib
from typing import Any

from provisioning import __version__
from provisioning.clock import now
from provisioning.config import Config
from provisioning.core.counters import Counters
from provisioning.core.workflow import Plan, Request, Submission, TaskCheckpoint
from provisioning.errors import Problem, SpoolUnusable
from provisioning.orchestrator.trust import Trust
from provisioning.storage.audit import Audit
from provisioning.storage.spool import Spool


class Oversight:
    """Implements `storage.gate.Gate` for one process."""

    def __init__(self, spool: Spool, config: Config) -> None:
        self.audit = Audit(spool.root, config.audit)
        self.trust = Trust(config)
        self.counters = Counters()
        self._adopted: set[str] = set()
        self._ending: set[tuple[str, str]] = set()
        """Ends, and pauses for a person, that were kept here."""
        self.just_ended: set[str] = set()
        """Workflows that this process has ended since `take_ended`."""

    def refusals(self, submission: Submission, plan: Plan) -> list[Problem]:
        """What no grant covers by now."""
        return self.trust.refusals(submission, plan)

    def accepting(self, submission: Submission) -> None:
        """Keep it."""
        self.audit.append("accepted", **_about(submission), digest=submission.digest, tasks=submission.tasks)

    def failed(self, submission: Submission) -> None:
        """Keep it, if the disk allows even that."""
        with contextlib.suppress(SpoolUnusable):
            self.audit.append("not-accepted", **_about(submission))

    def asking(self, request: Request) -> None:
        """Keep it."""
        self._ending = {each for each in self._ending if each[0] != request.workflow_id}
        self.audit.append(
            "request",
            workflow_id=request.workflow_id,
            operator=request.operator,
            verb=request.verb,
            tasks=request.tasks,
            request_id=request.request_id,
        )

    def rejecting(self, submission: Submission, code: str, problems: list[Problem]) -> None:
        """Keep it."""
        self.audit.append("rejected", **_about(submission), code=code, message=problems[0].message[:300])

    def starting(self, submission: Submission) -> None:
        """Keep it, and how long it has waited."""
        self.audit.append("started", **_about(submission))
        could = max(submission.submitted_at, submission.not_before or submission.submitted_at)
        self.counters.queue_seconds.observe(max(0.0, (now() - could).total_seconds()))

    def waiting(self, workflow_id: str, operator: str, task_id: str) -> None:
        """Keep it once, however often the pause itself has to be tried."""
        if (workflow_id, f"waiting {task_id}") not in self._ending:
            self.audit.append("waiting", workflow_id=workflow_id, operator=operator, task_id=task_id)
            self._ending.add((workflow_id, f"waiting {task_id}"))

    def ending(self, workflow_id: str, operator: str, state: str, reason: str) -> None:
        """Keep it once, however often the end itself has to be tried."""
        if (workflow_id, state) not in self._ending:
            self.audit.append("ended", workflow_id=workflow_id, operator=operator, state=state, reason=reason[:300])
            self._ending.add((workflow_id, state))
        self.just_ended.add(workflow_id)

    def attempted(self, operation: str, after: TaskCheckpoint) -> None:
        """Count it."""
        self.counters.note_attempt(operation, after)

    def adopted(self, attempt: str) -> None:
        """Count it once."""
        if attempt not in self._adopted:
            self._adopted.add(attempt)
            self.counters.adoptions += 1

    def take_ended(self) -> set[str]:
        """The workflows that this process has ended since the last call."""
        ended, self.just_ended = self.just_ended, set()
        return ended

    def orchestrating(self, *, began: bool) -> list[str]:
        """Keep that the orchestrator starts, with what decides, or stops; which files changed since the last start."""
        if not began:
            self.audit.append("orchestrator-stopped")
            return []
        digests = self.trust.digests()
        before: dict[str, Any] = {}
        for record in self.audit.records(newest=20_000):
            if record.get("event") == "orchestrator-started":
                before = record
        known = {name: before.get(name, "") for name in ("config", "authority", "signers", "revoked")} if before else {}
        changed = sorted(name for name, digest in known.items() if digest != digests.get(name, ""))
        self.audit.append("orchestrator-started", version=__version__, changed=changed, **digests)
        return changed


def _about(submission: Submission) -> dict[str, Any]:
    return {
        "workflow_id": submission.workflow_id,
        "operator": submission.operator,
        "door": submission.door,
        "workflow": submission.name,
        "infra": submission.infra,
    }
