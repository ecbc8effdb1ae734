"""What has ended leaves the spool: by its age, by how much of it is kept, and what nothing refers to any more."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from provisioning.clock import boottime
from provisioning.config import Retention
from provisioning.core.scheduler import Now
from provisioning.core.states import ENDED_WORKFLOWS
from provisioning.core.workflow import WorkflowCheckpoint
from provisioning.errors import ProvisioningError, SpoolUnusable
from provisioning.storage import files, reading
from provisioning.storage.spool import Spool
from provisioning.storage.trees import Unneeded

_log = logging.getLogger(__name__)

AGAIN_SECONDS = 3600.0
"""Between two clean-ups."""
PRESSED_SECONDS = 60.0
"""The same while the disk is below its marks."""
PORTION_SECONDS = 0.01
"""So long a clean-up may hold up one tick."""


class Rule(NamedTuple):
    """What goes: what ended at least so long ago, and what is beyond the latest so many; None keeps all."""

    age_seconds: float | None
    keep: int | None


KEEP_ALL = Rule(None, None)


def to_forget(ended: Mapping[str, datetime], rule: Rule, now: datetime) -> list[str]:
    """Which of the workflows that ended go, the earliest first: older than the age, or beyond the count.

    Of two that ended at the same instant the one submitted later is kept.
    """
    ranked = sorted(ended, key=lambda workflow_id: (ended[workflow_id], workflow_id))
    beyond = 0 if rule.keep is None else len(ranked) - rule.keep
    return [
        workflow_id
        for place, workflow_id in enumerate(ranked)
        if place < beyond or _is_past(ended[workflow_id], rule, now)
    ]


def _is_past(since: datetime, rule: Rule, now: datetime) -> bool:
    return rule.age_seconds is not None and (now - since).total_seconds() >= rule.age_seconds


class Cleanup:
    """One pass over a spool. Each step of `steps` does a little: it reads one workflow, or removes one file."""

    def __init__(self, spool: Spool, rule: Rule, now: datetime, *, dry_run: bool = False) -> None:
        self._spool = spool
        self._rule = rule
        self._now = now
        self._dry_run = dry_run
        self.workflows: list[str] = []
        """What has gone, or would go: workflow_ids, names in `rejected/`, digests of trees."""
        self.rejected: list[str] = []
        self.trees: list[str] = []
        self.problems: list[str] = []
        """What could not be removed, and why."""

    def steps(self) -> Iterator[None]:
        """Do the pass, a step at a time. What is given up between two steps is whole: here, or swept with `tmp/`."""
        for part in (self._workflows, self._rejected, self._trees):
            try:
                yield from part()
            except (ProvisioningError, OSError) as error:
                self.problems.append(str(error))

    def finish(self) -> None:
        """Do all steps that are left."""
        for _ in self.steps():
            pass

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """What fails in the block is a problem, and in nobody's way."""
        try:
            yield
        except (ProvisioningError, OSError) as error:
            self.problems.append(f"{what}: {error}")

    # Workflows

    def _workflows(self) -> Iterator[None]:
        ended: dict[str, datetime] = {}
        for workflow_id in self._spool.claimed_ids():
            if (checkpoint := self._ended(workflow_id)) and checkpoint.ended_at:
                ended[workflow_id] = checkpoint.ended_at
            yield
        for workflow_id in to_forget(ended, self._rule, self._now):
            with self._noting(f"workflow {workflow_id}"):
                yield from self._forget(workflow_id, ended[workflow_id])

    def _ended(self, workflow_id: str) -> WorkflowCheckpoint | None:
        """The checkpoint of a workflow that has ended; what cannot be read is left to a person."""
        try:
            checkpoint = self._spool.workflow(workflow_id).workflow()
        except ProvisioningError:
            return None
        return checkpoint if checkpoint and checkpoint.state in ENDED_WORKFLOWS else None

    def _forget(self, workflow_id: str, ended_at: datetime) -> Iterator[None]:
        """Remove the workflow, unless somebody holds it, asks something of it, or has set it going again."""
        if self._dry_run:
            if not self._spool.requests_of(workflow_id):
                self.workflows.append(workflow_id)
            return
        lock = self._spool.lock(workflow_id)
        if lock is None:
            return
        try:
            checkpoint = self._ended(workflow_id)
            if checkpoint is None or checkpoint.ended_at != ended_at or self._spool.requests_of(workflow_id):
                return
            gone = self._spool.forget(workflow_id)
        finally:
            lock.release()
        self.workflows.append(workflow_id)
        yield from _removing(gone)

    # What was rejected

    def _rejected(self) -> Iterator[None]:
        for name in sorted(reading.list_names(self._spool.rejected)):
            path = self._spool.rejected / name
            try:
                since = datetime.fromtimestamp(os.lstat(path).st_ctime, UTC)  # when it was put there: by a rename
            except FileNotFoundError:
                continue
            if not _is_past(since, self._rule, self._now):
                continue
            with self._noting(f"rejected/{name}"):
                yield from self._remove_rejected(path)
            yield

    def _remove_rejected(self, path: Path) -> Iterator[None]:
        gone = path
        if not self._dry_run and path.is_dir() and not path.is_symlink():
            gone = self._spool.discard(path)
        elif not self._dry_run:
            files.remove(path)
        self.rejected.append(path.name)
        if gone != path:
            yield from _removing(gone)

    # Trees of operations

    def _trees(self) -> Iterator[None]:
        unneeded = Unneeded(self._spool, self._now, without=frozenset(self.workflows))
        yield from unneeded.search()
        if self._dry_run:
            self.trees += sorted(unneeded.digests)
            return
        for digest, path in unneeded.discard().items():
            self.trees.append(digest)
            with self._noting(f"nulib/{digest}"):
                yield from _removing(path)
        self.problems += unneeded.problems


def _removing(path: Path) -> Iterator[None]:
    """Remove a folder and all that is in it, a file at each step; of a link, the link alone."""
    if path.is_symlink() or not path.is_dir():
        files.remove(path)
        return
    for folder, _, names in os.walk(path):
        for name in names:
            files.remove(Path(folder, name))
            yield
    try:
        files.remove_tree(path)
    except SpoolUnusable:
        if path.exists():  # else an orchestrator that starts has swept it
            raise


class Retainer:
    """Cleans up the spool of a process that works it: at its start, then about once an hour, a little in each tick."""

    def __init__(self, spool: Spool, settings: Retention) -> None:
        self._spool = spool
        self._rule = Rule(settings.age_seconds or None, settings.count or None)
        self._pressed = False
        self._cleanup: Cleanup | None = None
        self._steps: Iterator[None] = iter(())
        self._began = -math.inf

    def step(self, now: Now, *, pressed: bool) -> None:
        """Do a portion of the clean-up that is under way, or begin one that is due. `pressed`: the disk is low."""
        if self._cleanup is None:
            self._pressed = pressed
            if now.boottime < self.next_due():
                return
            self._began = now.boottime
            self._cleanup = Cleanup(self._spool, self._rule, now.wall)
            self._steps = self._cleanup.steps()
        until = boottime() + PORTION_SECONDS
        for _ in self._steps:
            if boottime() >= until:
                return
        self._tell(self._cleanup)
        self._cleanup = None

    def next_due(self) -> float:
        """The boottime at which `step` has something to do; infinite where nothing is ever to go."""
        if self._rule == KEEP_ALL:
            return math.inf
        if self._cleanup is not None:
            return self._began
        return self._began + (PRESSED_SECONDS if self._pressed else AGAIN_SECONDS)

    def _tell(self, cleanup: Cleanup) -> None:
        for problem in cleanup.problems:
            _log.warning("the clean-up left something: %s", problem)
        if cleanup.workflows or cleanup.rejected or cleanup.trees:
            counts = (len(cleanup.workflows), len(cleanup.rejected), len(cleanup.trees))
            _log.info("cleaned up: %d workflows, %d rejected, %d trees of operations", *counts)
