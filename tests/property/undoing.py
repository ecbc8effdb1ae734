"""A rollback as a workflow of its own, from the rules as they are written: for the reference to say what comes next."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from provisioning.core.rollback import SUFFIX
from provisioning.core.workflow import Plan, Rollback, Task, TaskCheckpoint, Workflow
from tests.property.reference import Reference


def waiting_for(workflow: Workflow) -> dict[str, set[str]]:
    """Of each task all that wait for it, directly or not."""
    of = Reference(workflow)
    found = {task.id: set(of.named((*task.depends_on, *task.after))) for task in workflow.tasks}
    for _ in found:
        found = {task_id: others.union(*(found[other] for other in others)) for task_id, others in found.items()}
    return {task_id: {other for other, before in found.items() if task_id in before} for task_id in found}


def to_undo(plan: Plan, checkpoints: Mapping[str, TaskCheckpoint], rollback: Rollback) -> set[str]:
    """The tasks that a rollback undoes."""
    behind, found = waiting_for(plan.workflow), set()
    within = set().union(*(behind[task_id] for task_id in rollback.to)) if rollback.to else set(behind)
    for task in plan.workflow.tasks:
        known = checkpoints.get(task.id)
        if known is None or task.undo is None or task.preserve or task.id in rollback.preserve:
            continue
        began = any(attempt.outcome != "not_started" for attempt in known.attempts)
        sure = known.state == "succeeded" or (plan.operations[task.undo.operation].idempotent and began)
        if sure and task.id in within:
            found.add(task.id)
    return found


def undoing(plan: Plan, checkpoints: Mapping[str, TaskCheckpoint], rollback: Rollback) -> Workflow:
    """A rollback as a workflow: each undo comes after those of all tasks that waited for its task."""
    behind, chosen = waiting_for(plan.workflow), to_undo(plan, checkpoints, rollback)
    tasks = tuple(
        Task(
            task.id + SUFFIX,
            task.undo.operation,
            after=tuple(f"{other}{SUFFIX}" for other in sorted(behind[task.id] & chosen)),
            retry=task.undo.retry,
        )
        for task in plan.workflow.tasks
        if task.undo is not None and task.id in chosen
    )
    return msgspec.structs.replace(plan.workflow, tasks=tasks, on_failure="continue")
