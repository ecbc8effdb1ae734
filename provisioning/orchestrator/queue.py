"""The incoming workflows as one process sees them: who is next, and when somebody will be."""

from __future__ import annotations

import heapq
from typing import NamedTuple

from provisioning.core.scheduler import Now
from provisioning.core.turns import rank
from provisioning.core.workflow import Submission
from provisioning.errors import ProvisioningError
from provisioning.storage.checkpoint import Damaged
from provisioning.storage.spool import Spool

STEP_SECONDS = 1.0
"""So far the wall clock may run away from the boottime before it counts as set."""


class Candidate(NamedTuple):
    """A workflow that may be claimed."""

    workflow_id: str
    rank: int
    """Lower goes first; see `core.turns.rank`."""


class Queue:
    """Incoming workflows by their ranks. Each submission is read once."""

    def __init__(self, spool: Spool, only: str | None) -> None:
        self._spool = spool
        self._only = only
        self._submissions: dict[str, Submission] = {}
        self._heap: list[tuple[int, str]] = []
        self._later: list[tuple[float, str]] = []
        self._offset = 0.0
        """The wall clock minus the boottime, in seconds, when it was last heeded."""

    def scan(self, now: Now) -> dict[str, Exception]:
        """Look at `incoming/`; what could not be read, and why."""
        present = set(self._spool.incoming_ids())
        if self._only is not None:
            present &= {self._only}
        for gone in self._submissions.keys() - present:
            del self._submissions[gone]
        failures: dict[str, Exception] = {}
        for workflow_id in sorted(present - self._submissions.keys()):
            try:
                submission = self._spool.find(workflow_id).submission()
            except (ProvisioningError, FileNotFoundError) as error:
                failures[workflow_id] = error
                continue
            if submission.workflow_id != workflow_id:
                failures[workflow_id] = Damaged(self._spool.incoming / workflow_id, f"it says {submission.workflow_id}")
                continue
            self._submissions[workflow_id] = submission
            self._push(submission, now)
        return failures

    def _push(self, submission: Submission, now: Now) -> None:
        if not self._expired(submission, now) and submission.not_before and submission.not_before > now.wall:
            self.postpone(submission.workflow_id, now.boottime + (submission.not_before - now.wall).total_seconds())
        else:
            heapq.heappush(self._heap, (rank(submission.priority, submission.workflow_id), submission.workflow_id))

    def heed_clock(self, now: Now) -> bool:
        """Where the wall clock was set, judge every submission anew, for they speak in its time; whether it was."""
        offset = now.wall.timestamp() - now.boottime
        was_set = abs(offset - self._offset) > STEP_SECONDS
        if was_set:
            self._offset = offset
            self._heap, self._later = [], []
            for submission in self._submissions.values():
                self._push(submission, now)
        return was_set

    def _expired(self, submission: Submission, now: Now) -> bool:
        return submission.expires_at is not None and submission.expires_at <= now.wall

    def postpone(self, workflow_id: str, boottime: float) -> None:
        """Do not offer the workflow before that instant."""
        heapq.heappush(self._later, (boottime, workflow_id))

    def best(self, now: Now) -> Candidate | None:
        """The workflow to claim next; it stays in the queue until `drop` or `postpone`."""
        while self._later and self._later[0][0] <= now.boottime:
            _, workflow_id = heapq.heappop(self._later)
            if submission := self._submissions.get(workflow_id):
                self._push(submission, now)
        while self._heap:
            ranked, workflow_id = self._heap[0]
            if submission := self._submissions.get(workflow_id):
                return Candidate(workflow_id, ranked)
            heapq.heappop(self._heap)
        return None

    def pop(self) -> None:
        """Take away what `best` offered."""
        heapq.heappop(self._heap)

    def drop(self, workflow_id: str) -> None:
        """Forget a workflow that is no longer incoming."""
        self._submissions.pop(workflow_id, None)

    def next_due(self) -> float | None:
        """The boottime at which a postponed workflow may be claimed."""
        return self._later[0][0] if self._later else None
