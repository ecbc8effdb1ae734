"""How many workflows and tasks of a spool are in which state, kept up to date by a look at what has changed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from provisioning.clock import boottime
from provisioning.core.states import ENDED_WORKFLOWS, WorkflowState
from provisioning.core.workflow import WorkflowCheckpoint
from provisioning.errors import SpoolUnusable
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import Spool

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
    """Counts by state. A round can be made in portions; a checkpoint that has not changed is not read again."""

    def __init__(self, spool: Spool, ended: Callable[[WorkflowCheckpoint], object] | None = None) -> None:
        self._spool = spool
        self._ended = ended
        """Told of each workflow that has ended, when it is read first and after each change."""
        self._known: dict[str, Known] = {}
        self._left: list[str] | None = None
        """What this round has still to look at; None where none is under way."""
        self._shapes: dict[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]] = {}
        self.workflows: Counter[str] = Counter()
        self.tasks: Counter[str] = Counter()

    def round(self, until: float) -> bool:
        """Look at everything, or go on with it, until that boottime at the latest; whether the round is over."""
        if self._left is None:
            self._left = self._spool.claimed_ids()
            for gone in self._known.keys() - set(self._left):
                self._set(gone, None)
        while self._left:
            self._look(self._left.pop())
            if boottime() >= until:
                break
        if self._left:
            return False
        self._left = None
        return True

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
