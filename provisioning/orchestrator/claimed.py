"""The claimed workflows as one process sees them: which of them want a holder. Those at rest are read once."""

from __future__ import annotations

import os

from provisioning.clock import now
from provisioning.core.states import ENDED_WORKFLOWS, TaskState, WorkflowState
from provisioning.storage.spool import Spool

Mark = tuple[int, int]

RACY_NS = 1_000_000_000
"""A checkpoint younger than this is not remembered: within one tick of the clock another may get inode and time.

One that is of the future, since the clock was set back, is: to be taken for it, another would have to be made in that
very tick of the future.
"""


class Claimed:
    """Remembers which workflows have ended or are paused with nothing under way, until their checkpoint is replaced.

    Whatever sets one going again, a retry or a resume, replaces it first.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._resting: dict[str, Mark] = {}

    def _mark(self, workflow_id: str) -> Mark | None:
        """What a replaced checkpoint cannot have in common with the one before; None where it is too young to say."""
        try:
            status = os.stat(f"{self._spool.workflows}/{workflow_id}/workflow.json")
        except FileNotFoundError:
            return None
        settled = abs(now().timestamp() * 1e9 - status.st_ctime_ns) > RACY_NS
        return (status.st_ino, status.st_ctime_ns) if settled else None

    def wants_holder(self, workflow_id: str) -> bool:
        """Whether the workflow has neither ended nor is merely paused; raises what reading its files does.

        One that is being cancelled wants its end, paused or not: the request for it may be applied and gone.
        """
        mark = self._mark(workflow_id)  # before the reading: a retry between the two must show the next time
        if mark is not None and self._resting.get(workflow_id) == mark:
            return False
        folder = self._spool.workflow(workflow_id)
        checkpoint = folder.workflow()
        rests = checkpoint is not None and (
            checkpoint.state in ENDED_WORKFLOWS
            or (
                checkpoint.state is WorkflowState.PAUSED
                and not checkpoint.cancelling
                and not any(task.state is TaskState.RUNNING for task in folder.tasks())
            )
        )
        if rests and mark is not None:
            self._resting[workflow_id] = mark
        return not rests
