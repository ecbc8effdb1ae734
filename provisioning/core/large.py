"""What workflows of very many tasks need: equal parts kept once in memory, and a summary to be shown by."""

from __future__ import annotations

from typing import Any

import msgspec

from provisioning.core.identifiers import OperationName, TaskId
from provisioning.core.workflow import Task, Workflow

LARGE_TASKS = 1000
"""A workflow of more tasks has a summary, and is shown by it."""
SUMMED_TASKS = 50
"""So many tasks of a kind does a summary name."""


class Summary(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a look at a large workflow needs, without its plan and its tasks' checkpoints: a view, a second old."""

    format: int
    counts: dict[str, int]
    """Tasks by state."""
    tasks: dict[TaskId, OperationName] = {}
    """Those that wait for a person, have failed or run: of each kind the first `SUMMED_TASKS`."""


def sharing(workflow: Workflow) -> Workflow:
    """The same workflow, with names and policies that are equal in memory once: it may have 100,000 tasks."""
    kept: dict[Any, Any] = {task.id: task.id.encode().decode() for task in workflow.tasks}

    def once(value: Any) -> Any:
        return kept.setdefault(value, value)

    def shared(task: Task) -> Task:
        return msgspec.structs.replace(
            task,
            id=kept[task.id],
            operation=once(task.operation),
            depends_on=once(tuple(map(once, task.depends_on))),
            after=once(tuple(map(once, task.after))),
            timeout_seconds=once(task.timeout_seconds),
            retry=once(task.retry),
            on_interrupt=once(task.on_interrupt),
        )

    return msgspec.structs.replace(workflow, tasks=tuple(map(shared, workflow.tasks)))
