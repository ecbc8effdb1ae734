"""Rolling back: which tasks of a workflow are undone, in which order, and what is left when all is over.

An undo is a task of its own, `web~undo` of `web`, with attempts, checkpoints and outcomes like any other. Which there
are follows from plan and checkpoints, and these do not change while a workflow is rolled back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec

from provisioning.core.attempts import GIVE_UP
from provisioning.core.graph import Graph
from provisioning.core.scheduler import Now, Schedule
from provisioning.core.states import Outcome, TaskState, WorkflowEvent
from provisioning.core.workflow import Plan, Rollback, Task, TaskCheckpoint

SUFFIX = "~undo"
UNDONE = "undone"
"""Shown for a task whose undo has succeeded. Not a state: it follows from the undo's."""

_FAILED = (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.INTERRUPTED, Outcome.CANCELLED, None)
"""After such an attempt something half-made may be there."""


def undo_id(task_id: str) -> str:
    """The id of what undoes the task."""
    return task_id + SUFFIX


def is_undo(task_id: str) -> bool:
    """Whether it is the id of an undo."""
    return task_id.endswith(SUFFIX)


def undo_tasks(plan: Plan) -> dict[str, Task]:
    """The undo of every task that has one, by its own id."""
    return {undo_id(task.id): _undo_task(plan, task) for task in plan.workflow.tasks if task.undo is not None}


def _undo_task(plan: Plan, task: Task) -> Task:
    assert task.undo is not None
    operation = plan.operations.get(task.undo.operation)
    return Task(
        id=undo_id(task.id),
        operation=task.undo.operation,
        params=task.undo.params or {},
        timeout_seconds=task.undo.timeout_seconds,
        retry=task.undo.retry,
        executor=task.executor,
        on_interrupt="rerun" if operation is not None and operation.idempotent else GIVE_UP,
    )


class Undoing(Schedule):
    """The schedule of a rollback: its tasks are the undos, its end says what could not be undone."""

    def __init__(
        self, plan: Plan, checkpoints: Mapping[str, TaskCheckpoint], rollback: Rollback | None, now: Now
    ) -> None:
        graph = Graph(plan.workflow.tasks)
        chosen = list(_chosen(plan, graph, checkpoints, rollback or Rollback()))
        tasks = tuple(_undo_task(plan, plan.workflow.tasks[i]) for i in chosen)
        names = [task.id for task in tasks]
        backwards = graph.backwards(chosen, names)
        ended = [_ended(checkpoints[plan.workflow.tasks[i].id]) for i in chosen]
        workflow = msgspec.structs.replace(
            plan.workflow, tasks=tasks, on_failure="continue", not_before=None, expires_at=None
        )
        known = (checkpoints[name] for name in names if name in checkpoints)
        # The one that has ended last is undone first, where the order leaves a choice.
        super().__init__(workflow, known, now, graph=backwards, urgency=[*ended, *[0.0] * len(backwards.names)])

    def _verdict(self) -> tuple[WorkflowEvent, str]:
        failed = [self.tasks[i].id.removesuffix(SUFFIX) for i, state in enumerate(self.states[: len(self.tasks)])
                  if state is not TaskState.SUCCEEDED]  # fmt: skip
        told = ", ".join(failed[:5]) + (f" and {len(failed) - 5} more" if len(failed) > 5 else "")
        done = f"{len(self.tasks) - len(failed)} tasks undone"
        return WorkflowEvent.ROLLED_BACK, f"{done}; could not be undone: {told}" if failed else done


def _ended(checkpoint: TaskCheckpoint) -> float:
    """When the task ended, as a Unix time."""
    last = checkpoint.last
    return (last.ended_at or last.started_at).timestamp() if last else 0.0


def _chosen(plan: Plan, graph: Graph, checkpoints: Mapping[str, TaskCheckpoint], rollback: Rollback) -> Iterator[int]:
    """The tasks that are undone, by their numbers."""
    within = graph.behind(rollback.to) - {*rollback.to} if rollback.to else None
    for i, task in enumerate(plan.workflow.tasks):
        checkpoint = checkpoints.get(task.id)
        if checkpoint is None or task.undo is None or task.preserve or task.id in rollback.preserve:
            continue
        if (within is None or task.id in within) and _leaves_something(plan, task, checkpoint):
            yield i


def _leaves_something(plan: Plan, task: Task, checkpoint: TaskCheckpoint) -> bool:
    """Whether there is, or may be, something to undo: where nobody knows, only by an undo that does no harm."""
    if checkpoint.state is TaskState.SUCCEEDED:
        return True
    assert task.undo is not None
    operation = plan.operations.get(task.undo.operation)
    if operation is None or not operation.idempotent:
        return False
    return any(not attempt.probe and attempt.outcome in _FAILED for attempt in checkpoint.attempts)


def not_undone(plan: Plan, checkpoints: Mapping[str, TaskCheckpoint], rollback: Rollback | None) -> dict[str, str]:
    """What a rollback has left as it was, or may have, and why: by task."""
    asked = rollback or Rollback()
    within = Graph(plan.workflow.tasks).behind(asked.to) - {*asked.to} if asked.to else None
    found: dict[str, str] = {}
    for task in plan.workflow.tasks:
        checkpoint, undo = checkpoints.get(task.id), checkpoints.get(undo_id(task.id))
        began = checkpoint is not None and any(
            attempt.outcome in (*_FAILED, Outcome.SUCCEEDED) for attempt in checkpoint.attempts
        )
        if checkpoint is None or not began or (undo and undo.state is TaskState.SUCCEEDED):
            continue
        if undo is not None:
            found[task.id] = f"its undo {undo.state}: {undo.reason}" if undo.reason else f"its undo {undo.state}"
        elif within is not None and task.id not in within:
            continue
        elif task.preserve or task.id in asked.preserve:
            found[task.id] = "preserved"
        elif task.undo is None:
            found[task.id] = "it has no undo"
        elif checkpoint.state is not TaskState.SUCCEEDED:
            found[task.id] = "what it left is not known, and its undo is not idempotent"
    return found


def undone(checkpoints: Mapping[str, TaskCheckpoint]) -> set[str]:
    """The tasks whose undo has succeeded."""
    succeeded = (c.task_id for c in checkpoints.values() if is_undo(c.task_id) and c.state is TaskState.SUCCEEDED)
    return {task_id.removesuffix(SUFFIX) for task_id in succeeded}


def counted(states: Mapping[str, str], checkpoints: Mapping[str, TaskCheckpoint]) -> dict[str, int]:
    """Tasks by what is shown of them: their states, by task, and undone ones."""
    gone = undone(checkpoints)
    return dict(sorted(Counter(UNDONE if task_id in gone else state for task_id, state in states.items()).items()))
