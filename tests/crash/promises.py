"""What was said, or begun, before the power went, and what must therefore be on the disk after it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from provisioning.core.states import ENDED_TASKS, Outcome
from provisioning.core.workflow import OutcomeRecord, Plan, Request, Submission, TaskCheckpoint, WorkflowCheckpoint
from provisioning.errors import Problem
from provisioning.storage.ids import Reservation
from tests.crash.disk import State
from tests.crash.recording import Moment, attempts_begun

T = TypeVar("T")
Said = Callable[[State], str]
"""What is missing of it in a state, or nothing."""


@cache
def _decoded(data: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError:
        return None


def read(state: State, path: str, kind: type[T]) -> T | None:
    """The file as `kind`; None where it is not there, or not whole."""
    data = state.get(path)
    value = None if data is None else _decoded(data, kind)  # type: ignore[arg-type]  # mypy takes a class for unhashable
    assert value is None or isinstance(value, kind)
    return value


@dataclass(frozen=True)
class Submitted:
    """`batch submit` has printed the id."""

    workflow_id: str

    def __call__(self, state: State) -> str:
        for parent in ("workflows", "incoming"):
            folder = f"spool/{parent}/{self.workflow_id}"
            submission = read(state, f"{folder}/submission.json", Submission)
            if submission is None:
                continue
            manifest = state.get(f"{folder}/manifest.json") or b""
            if hashlib.sha256(manifest).hexdigest() != submission.digest:
                return f"{folder} has not the manifest that was submitted"
            if submission.id is None:
                return ""
            reserved = read(state, f"spool/ids/{submission.id}.json", Reservation)
            return "" if reserved and reserved.workflow_id == self.workflow_id else f"the id {submission.id} is free"
        return f"{self.workflow_id} was accepted and is not there"


@dataclass(frozen=True)
class Asked:
    """`workflow cancel` or `workflow retry` has returned."""

    workflow_id: str
    verb: str

    def __call__(self, state: State) -> str:
        checkpoint = read(state, f"spool/workflows/{self.workflow_id}/workflow.json", WorkflowCheckpoint)
        if checkpoint and any(request.verb == self.verb for request in checkpoint.applied):
            return ""
        for path in state:
            request = read(state, path, Request) if path.startswith(f"spool/requests/{self.workflow_id}.") else None
            if request and request.verb == self.verb:
                return ""
        return f"{self.verb} of {self.workflow_id} was accepted and is neither applied nor asked"


@dataclass(frozen=True)
class Ended:
    """An orchestrator that works until the spool is empty has returned: it has ended, unless it is retried."""

    workflow_id: str
    state: str
    begun: tuple[str, ...]
    """The tasks that have been begun in it."""

    def __call__(self, state: State) -> str:
        folder = f"spool/workflows/{self.workflow_id}"
        checkpoint = read(state, f"{folder}/workflow.json", WorkflowCheckpoint)
        if checkpoint is None:
            return f"{self.workflow_id} has ended and has no checkpoint"
        if self.state == "failed" and not Asked(self.workflow_id, "retry")(state):
            return ""
        if checkpoint.state != self.state:
            return f"{self.workflow_id} is not {self.state}"
        for task_id in self.begun:
            name = f"{folder}/tasks/{task_id}.json"
            task = read(state, name, TaskCheckpoint)
            if task is None and name in state and outcomes(state, folder, task_id) == [Outcome.SUCCEEDED]:
                continue  # of such a record bytes may be missing: its outcome says it all again
            if task is None or task.state not in ENDED_TASKS:
                return f"{self.workflow_id} has ended, and its task {task_id} has not"
        return ""


@dataclass(frozen=True)
class Began:
    """The process of an attempt has been started."""

    plan: Plan
    task_id: str
    number: int

    @property
    def idempotent(self) -> bool:
        task = next(task for task in self.plan.workflow.tasks if task.id == self.task_id)
        return self.plan.operations[task.operation].idempotent

    def __call__(self, state: State) -> str:
        folder = f"spool/workflows/{self.plan.workflow_id}"
        task = next(task for task in self.plan.workflow.tasks if task.id == self.task_id)
        for needed in task.depends_on:
            if Outcome.SUCCEEDED not in outcomes(state, folder, needed):
                return f"{self.task_id} began, and the outcome of {needed}, which it depends on, is not there"
        ended = len(outcomes(state, folder, self.task_id))
        if ended < self.number - 1:
            return f"attempt {self.number} of {self.task_id} began, and an outcome of those before is not there"
        checkpoint = read(state, f"{folder}/tasks/{self.task_id}.json", TaskCheckpoint)
        numbers = [attempt.number for attempt in checkpoint.attempts] if checkpoint else []
        if not self.idempotent and self.number not in numbers and ended < self.number:
            return f"attempt {self.number} of {self.task_id} began, is not idempotent, and would be made again"
        return ""


@dataclass(frozen=True)
class Kept:
    """A plan refers to these operations, which are what runs after the cut."""

    workflow_id: str
    tree: dict[str, bytes | None]

    def __call__(self, state: State) -> str:
        if not any(f"spool/{parent}/{self.workflow_id}/plan.json" in state for parent in ("incoming", "workflows")):
            return ""
        changed = (path for path, data in self.tree.items() if state.get(path, b"absent") != data)
        path = next(changed, "")
        return f"{self.workflow_id} is planned, and {path} is not as it was kept" if path else ""


def outcomes(state: State, folder: str, task_id: str) -> list[Outcome]:
    """How the attempts of a task ended, first to last."""
    found: list[Outcome] = []
    while record := read(state, f"{folder}/outcomes/{task_id}.{len(found) + 1}.json", OutcomeRecord):
        found.append(record.outcome)
    return found


def begun(moments: list[Moment], plans: dict[str, Plan]) -> Iterator[tuple[int, Began]]:
    """Each attempt's beginning, by the index of its moment."""
    for index, log in attempts_begun(moments):
        path = Path(log)
        task_id, _, number = path.stem.rpartition(".")
        yield index, Began(plans[path.parent.parent.name], task_id, int(number))


def unexplained(found: Iterable[Problem], plans: dict[str, Plan], *, made: bool) -> list[str]:
    """What `spool check` dislikes in a state that a power cut may not leave.

    It may leave three things. A spool that `spool init` has not finished is `unusable`: nobody was told of it. An
    outcome is durable while the record that its attempt was starting is not, where the operation is idempotent:
    recovery takes that outcome when it makes the attempt again. And of that record some bytes may be missing, which
    recovery finds out about.
    """
    left = []
    for problem in found:
        if problem.code == "cut-off" or (problem.code == "unusable" and not made):
            continue
        if problem.code == "unknown-attempt":
            path = Path(problem.file)
            plan = plans[path.parent.parent.name]
            if Began(plan, path.name.rsplit(".", 2)[0], 1).idempotent:
                continue
        left.append(f"{problem.code}: {problem.file}: {problem.message}")
    return left
