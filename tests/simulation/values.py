"""What tests of the core and of the storage build their values from."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from provisioning.core.scheduler import Now, Schedule
from provisioning.core.states import Outcome, TaskState
from provisioning.core.workflow import (
    FORMAT,
    Attempt,
    OutcomeRecord,
    Submission,
    Task,
    TaskCheckpoint,
    TaskError,
    Workflow,
)

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
WORKFLOW_ID = "01kc0000000000000000000000"
ONE, TWO = "01kc0000000000000000000001", "01kc0000000000000000000002"
MANIFEST = b'{"schema": 1}'


def at(seconds: float, boot_id: str = "boot-1") -> Now:
    """An instant so many seconds after the boot, which was at EPOCH."""
    return Now(EPOCH + timedelta(seconds=seconds), seconds, boot_id)


def attempt(number: int, outcome: Outcome | None = None) -> Attempt:
    return Attempt(number, EPOCH, "boot-1", f"{number:026}", outcome=outcome)


def checkpoint(task_id: str, state: TaskState, *outcomes: Outcome | None, **rest: Any) -> TaskCheckpoint:
    """A task in this state after attempts that ended so; None stands for one that has not ended."""
    tried = tuple(attempt(number, outcome) for number, outcome in enumerate(outcomes, 1))
    return TaskCheckpoint(FORMAT, task_id, state, tried, **rest)


def record(task_id: str, outcome: Outcome, number: int = 1, **rest: Any) -> OutcomeRecord:
    code = rest.pop("code", None)
    if code is not None:
        rest["error"] = TaskError(code, "it went wrong")
    return OutcomeRecord(FORMAT, WORKFLOW_ID, task_id, number, outcome, EPOCH, EPOCH, **rest)


NULIB = "d" * 64
"""Digest of a tree of operations."""


def graph(edges: Iterable[str], **rest: Any) -> Workflow:
    """A workflow from lines such as `c: a b ~d`: c depends on a and b, and comes after d."""
    tasks = []
    for line in edges:
        task_id, _, waits = line.partition(":")
        names = waits.split()
        tasks.append(
            Task(
                task_id.strip(),
                "selftest.noop",
                depends_on=tuple(name for name in names if not name.startswith("~")),
                after=tuple(name[1:] for name in names if name.startswith("~")),
            )
        )
    return Workflow("graph", tuple(tasks), **rest)


def schedule(edges: Iterable[str], *checkpoints: TaskCheckpoint, now: Now | None = None, **rest: Any) -> Schedule:
    return Schedule(graph(edges, **rest), checkpoints, now or at(0))


def started(schedule: Schedule, boottime: float = 0.0) -> list[str]:
    """Start all that may start, in its order."""
    found = []
    while schedule.can_start(boottime):
        found.append(schedule.start_next().id)
    return found


def finish(schedule: Schedule, task_id: str, outcome: Outcome = Outcome.SUCCEEDED) -> None:
    """The running task ends so, for good."""
    state = TaskState.SUCCEEDED if outcome is Outcome.SUCCEEDED else TaskState.FAILED
    schedule.settle(checkpoint(task_id, state, outcome), at(0))


def state(schedule: Schedule, task_id: str) -> str:
    return str(schedule.states[schedule.index[task_id]])


def submission(workflow_id: str = WORKFLOW_ID, **rest: Any) -> Submission:
    values: dict[str, Any] = {
        "format": FORMAT,
        "workflow_id": workflow_id,
        "name": "nightly",
        "infra": "default",
        "operator": "alice",
        "door": "cli",
        "digest": "0" * 64,
        "submitted_at": EPOCH,
        "tasks": 1,
    }
    return msgspec.convert(values | rest, Submission)
