"""How many workflows and tasks of a spool are in which state, kept up to date by a look at what has changed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from provisioning.clock import boottime, now
from provisioning.core.identifiers import WORKFLOW_ID
from provisioning.core.states import ENDED_WORKFLOWS, WorkflowState
from provisioning.core.workflow import WorkflowCheckpoint
from provisioning.errors import SpoolUnusable
from provisioning.storage import reading
from provisioning.storage.active import active_ids
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import Spool

SETTLED_SECONDS = 1.0
"""What has changed since could have the same time as what was seen."""
DAMAGED = "damaged"
"""Counted for a workflow whose checkpoint cannot be read."""


class Known(NamedTuple):
    """What was last read of a claimed workflow, and of which file."""

    mark: tuple[int, int]
    state: str
    tasks: tuple[tuple[str, int], ...]
    """Tasks by state, as of the last change of the workflow itself."""


_NONE = Known((0, 0), str(WorkflowState.QUEUED), ())
"""A claimed workflow without a checkpoint: its claim is under way, or was cut off."""


class Census:
    """Counts by state. A round can be made in portions.

    Looked at is what is new, what is or was active (`locks/active/`), and what somebody has said to have changed: who
    begins or ends a workflow says so in the audit log. Those at rest cost no more than their names.
    """

    def __init__(self, spool: Spool, ended: Callable[[WorkflowCheckpoint], object] | None = None) -> None:
        self._spool = spool
        self._ended = ended
        """Told of each workflow that has ended, when it is read first and after each change."""
        self._known: dict[str, Known] = {}
        self._changed: set[str] = set()
        """What is to be looked at in the next round."""
        self._left: list[str] | None = None
        """What this round has still to look at; None where none is under way."""
        self._shapes: dict[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]] = {}
        self._listed = 0
        """Time of the last change of `workflows/` when its names were read; 0 where it may have changed since."""
        self.workflows: Counter[str] = Counter()
        self.tasks: Counter[str] = Counter()

    def note(self, workflow_id: str) -> None:
        """Take note that something became of this workflow."""
        self._changed.add(workflow_id)

    def round(self, until: float) -> bool:
        """Look at all that may have changed, or go on with it, until that boottime; whether the round is over."""
        if self._left is None:
            self._left = self._begin()
        while self._left:
            self._look(self._left.pop())
            if boottime() >= until:
                break
        if self._left:
            return False
        self._left = None
        return True

    def _begin(self) -> list[str]:
        active = active_ids(self._spool.root)
        folder = os.stat(self._spool.workflows)
        if self._listed != folder.st_mtime_ns:
            names = set(filter(WORKFLOW_ID.match, reading.list_names(self._spool.workflows)))
            for gone in self._known.keys() - names:
                self._set(gone, None)
            self._changed |= names - self._known.keys()
            settled = now().timestamp() - folder.st_mtime > SETTLED_SECONDS
            self._listed = folder.st_mtime_ns if settled else 0
        found = sorted(filter(WORKFLOW_ID.match, self._changed.union(active)))
        self._changed = set(active)  # the last change of one may come after this look, and before it is not active
        return found

    def of(self, workflow_id: str) -> Known | None:
        """What is counted of a workflow, if it is."""
        return self._known.get(workflow_id)

    def _look(self, workflow_id: str) -> None:
        folder = self._spool.workflows / workflow_id
        try:
            found = os.lstat(f"{folder}/workflow.json")
        except OSError:
            self._set(workflow_id, _NONE if folder.is_dir() else None)
            return
        mark = (found.st_ino, found.st_mtime_ns)
        known = self._known.get(workflow_id)
        if known is not None and known.mark == mark:
            return
        try:
            checkpoint = WorkflowFolder(folder).workflow()
        except SpoolUnusable:
            self._set(workflow_id, Known(mark, DAMAGED, ()))
            return
        if checkpoint is None:
            self._set(workflow_id, _NONE)
            return
        tasks = tuple(sorted(checkpoint.counts.items()))
        self._set(workflow_id, Known(mark, str(checkpoint.state), self._shapes.setdefault(tasks, tasks)))
        if self._ended is not None and checkpoint.state in ENDED_WORKFLOWS:
            self._ended(checkpoint)

    def _set(self, workflow_id: str, known: Known | None) -> None:
        if before := self._known.pop(workflow_id, None):
            self.workflows[before.state] -= 1
            self.tasks.subtract(dict(before.tasks))
        if known is not None:
            self._known[workflow_id] = known
            self.workflows[known.state] += 1
            self.tasks.update(dict(known.tasks))
