"""The incoming workflows as one process sees them: who is next, and when somebody will be."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from provisioning.core.identifiers import WORKFLOW_ID
from provisioning.core.scheduler import Now
from provisioning.core.turns import rank
from provisioning.core.workflow import Submission
from provisioning.errors import ProvisioningError
from provisioning.storage.checkpoint import Damaged, WorkflowFolder
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
        self._heard: set[str] = set()
        """What has just come in, as far as somebody has said so: it is looked at without a look at all the others."""
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
                self._read(workflow_id, now)
            except (ProvisioningError, FileNotFoundError) as error:
                failures[workflow_id] = error
        return failures

    def _read(self, workflow_id: str, now: Now) -> None:
        submission = WorkflowFolder(self._spool.incoming / workflow_id).submission()
        if submission.workflow_id != workflow_id:
            raise Damaged(self._spool.incoming / workflow_id, f"it says {submission.workflow_id}")
        self._submissions[workflow_id] = submission
        self._push(submission, now)

    def hear(self, arrived: Sequence[str]) -> bool:
        """Take a hint of what has arrived in the spool, by path; whether that was workflows that came in, and no more.

        What is wrong with one of them the next scan finds.
        """
        paths = [Path(path) for path in arrived]
        if self._only is None:
            self._heard.update(path.name for path in paths if path.parent == self._spool.incoming)
        return bool(paths) and all(path.parent == self._spool.incoming for path in paths)

    def _look_at_heard(self, now: Now) -> None:
        for workflow_id in sorted(filter(WORKFLOW_ID.match, self._heard - self._submissions.keys())):
            with contextlib.suppress(ProvisioningError, FileNotFoundError):
                self._read(workflow_id, now)
        self._heard.clear()

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
        self._look_at_heard(now)
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
        """The boottime at which a postponed workflow may be claimed; one that somebody has taken meanwhile is none."""
        while self._later and self._later[0][1] not in self._submissions:
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None
