"""The histories can fail: each of these defects, planted on purpose, is found by them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from provisioning.core import attempts
from provisioning.core.scheduler import Schedule
from provisioning.core.workflow import TaskCheckpoint, Workflow, WorkflowCheckpoint
from provisioning.execution.attempt import InSpool
from provisioning.execution.executor import Key, News, Seen
from provisioning.orchestrator import claim, held, loop, queue, recovery, requests, work
from provisioning.orchestrator.held import Held
from provisioning.orchestrator.limits import Limits
from provisioning.storage import files, limits, reading
from provisioning.storage.checkpoint import Damaged, WorkflowFolder
from provisioning.storage.lock import Lock
from provisioning.storage.naming import naming
from provisioning.storage.spool import Spool
from tests.simulation import world
from tests.simulation.history import run_histories
from tests.simulation.worker import Worker

SEEDS = range(400)
"""A fifth of the ordinary run: each defect shows in fewer."""


def no_directory_fsync(patched: pytest.MonkeyPatch) -> None:
    """Renames and links are not made durable."""
    patched.setattr(files, "sync_dir", lambda path: None)


def outcome_after_the_message(patched: pytest.MonkeyPatch) -> None:
    """A worker says how its attempt ended, and only then puts the outcome on the disk."""
    original = world.World._put_outcome

    def hasty(self: world.World, worker: Worker) -> None:
        assert worker.record is not None
        worker.news(News(worker.key, Seen.ENDED, worker.record))
        worker.news = lambda news: None
        self.later(0.05, lambda: original(self, worker))

    patched.setattr(world.World, "_put_outcome", hasty)


def unlink_before_acceptance(patched: pytest.MonkeyPatch) -> None:
    """A request goes before what it asks for is on record."""

    def hasty(spool: Spool, held: Held) -> bool:
        found = spool.requests_of(held.workflow_id)
        for path, request in found:
            files.remove(path)
            requests._apply(held, request)
        return bool(found)

    for module in (loop, requests):
        patched.setattr(module, "apply_all", hasty)


def accepted_before_it_is_durable(patched: pytest.MonkeyPatch) -> None:
    """A submission is called accepted as soon as it is visible."""

    def hasty(self: Spool, prepared: Path, submission: Any) -> str:
        with naming(self.incoming):
            os.rename(prepared, self.incoming / submission.workflow_id)
        return str(submission.workflow_id)

    patched.setattr(Spool, "_put", hasty)


def lock_by_age(patched: pytest.MonkeyPatch) -> None:
    """A lock that somebody has had for a while is taken over."""
    original = Lock.take
    since: dict[Path, float] = {}

    def impatient(self: Lock, *, wait_seconds: float = 0.0) -> bool:
        at = claim.instant().boottime
        if original(self, wait_seconds=wait_seconds):
            since[self._path] = at
            return True
        return at - since.get(self._path, at) > 0.2

    patched.setattr(Lock, "take", impatient)


def retry_without_attempt_number(patched: pytest.MonkeyPatch) -> None:
    """Another attempt has the number of the one before."""
    original = attempts.started

    def careless(checkpoint: TaskCheckpoint, *rest: Any) -> TaskCheckpoint:
        after = original(checkpoint, *rest)
        return msgspec.structs.replace(after, attempts=(msgspec.structs.replace(after.attempts[-1], number=1),))

    patched.setattr(attempts, "started", careless)
    patched.setattr(held, "Key", lambda workflow_id, task_id, _number: Key(workflow_id, task_id, 1))


def checkpoints_in_pieces(patched: pytest.MonkeyPatch) -> None:
    """The bytes of a checkpoint are not on the disk before its name is."""
    original = files.write_atomic

    def careless(path: Path, data: bytes, *, whole: bool = False, **rest: Any) -> None:
        original(path, data, **rest)

    patched.setattr(files, "write_atomic", careless)


def ends_before_its_tasks(patched: pytest.MonkeyPatch) -> None:
    """That a workflow has ended is on the disk, and that its tasks have is not."""
    original = WorkflowFolder.save_workflow

    def careless(self: WorkflowFolder, checkpoint: WorkflowCheckpoint, kind: str = "workflow") -> None:
        original(self, checkpoint, "request" if kind == "workflow ended" else kind)  # as durable, but for the tasks

    patched.setattr(WorkflowFolder, "save_workflow", careless)


def folders_in_an_unsynced_folder(patched: pytest.MonkeyPatch) -> None:
    """What is synced in `tasks/` and `outcomes/` goes with them."""

    def careless(self: WorkflowFolder) -> None:
        for name in ("tasks", "outcomes", "logs"):
            files.make_dir(self.path / name)

    patched.setattr(WorkflowFolder, "prepare", careless)


def deaf_to_the_clock(patched: pytest.MonkeyPatch) -> None:
    """Nobody notices that the wall clock was set."""
    patched.setattr(queue, "STEP_SECONDS", 1e12)


def ignore_locks(patched: pytest.MonkeyPatch) -> None:
    """Recovery calls an attempt interrupted without asking whether it lives."""
    patched.setattr(recovery, "attempt_is_alive", lambda path: False)
    patched.setattr(recovery, "lock_ended_attempt", files.open_log_to_lock)
    patched.setattr(reading, "scratch_is_held", lambda path: False)


def ignore_dependencies(patched: pytest.MonkeyPatch) -> None:
    """The scheduler starts every task at once."""
    original = Schedule.__init__

    def careless(self: Schedule, workflow: Workflow, *rest: Any) -> None:
        tasks = tuple(msgspec.structs.replace(task, depends_on=(), after=()) for task in workflow.tasks)
        original(self, msgspec.structs.replace(workflow, tasks=tasks), *rest)

    patched.setattr(Schedule, "__init__", careless)


def rerun_everything(patched: pytest.MonkeyPatch) -> None:
    """What was interrupted is done again although it may have been done."""
    original = attempts.interrupted

    def careless(checkpoint: Any, task: Any, *rest: Any) -> Any:
        return original(checkpoint, msgspec.structs.replace(task, on_interrupt="rerun"), *rest)

    patched.setattr(attempts, "interrupted", careless)


def work_unasked(patched: pytest.MonkeyPatch) -> None:
    """A worker does not look whether its attempt was given up before it began."""
    patched.setattr(InSpool, "is_wanted", lambda _place: True)


def share_locks(patched: pytest.MonkeyPatch) -> None:
    """A workflow may have two holders."""
    patched.setattr(Lock, "take", lambda self, **_: True)


def leave_outcomes(patched: pytest.MonkeyPatch) -> None:
    """Recovery finds an outcome and does not record it."""
    patched.setattr(recovery, "_ended", lambda *_args: None)


def hold_nothing(patched: pytest.MonkeyPatch) -> None:
    """Targets and groups keep nobody apart."""
    patched.setattr(limits, "_take", lambda *_: True)
    patched.setattr(Limits, "in_the_way", lambda *_: "")


def ask_no_condition(patched: pytest.MonkeyPatch) -> None:
    """A task is done whatever it asks of another's result."""
    patched.setattr(work, "_decided", lambda *_: None)


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (no_directory_fsync, "accepted and lost|began|it has no end|is called|Problem"),
        (outcome_after_the_message, "began|is called"),
        (unlink_before_acceptance, "was not done|is called"),
        (accepted_before_it_is_durable, "accepted and lost"),
        (lock_by_age, "a living worker is never killed|began|was not done|it has no end"),
        (retry_without_attempt_number, "began twice|it has no end"),
        (checkpoints_in_pieces, "is damaged|it has no end"),
        (ends_before_its_tasks, "it has no end"),
        (folders_in_an_unsynced_folder, "began|is called"),
        (deaf_to_the_clock, "it has no end: .*queued"),
        (ignore_locks, "began"),
        (ignore_dependencies, "began"),
        (rerun_everything, "was done . times"),
        (work_unasked, "Problem|was done . times|began"),
        (share_locks, "a living worker is never killed|began|was not done|was done . times"),
        (leave_outcomes, "it has no end"),
        (hold_nothing, "began while others held"),
        (ask_no_condition, "began and t. had returned"),
    ],
)
def test_a_planted_defect_is_found(plant: Callable[[pytest.MonkeyPatch], None], found: str) -> None:
    """As a promise that is broken, not as some error; a file that nobody damaged is damaged only where one is torn."""
    kinds = (AssertionError, Damaged) if plant is checkpoints_in_pieces else AssertionError
    with pytest.MonkeyPatch.context() as patched:
        plant(patched)
        with pytest.raises(kinds, match=found) as raised:
            run_histories(SEEDS)
    assert any("seed" in note for note in raised.value.__notes__)
