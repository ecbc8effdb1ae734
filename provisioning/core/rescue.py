"""What is left of a workflow, as a workflow of its own: what the finished tasks have found out stands in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from provisioning.core.graph import Graph, prefixes
from provisioning.core.references import (
    UNKNOWN,
    BadReference,
    Reference,
    escaped,
    literal,
    named,
    references,
    substituted,
    value_at,
)
from provisioning.core.rollback import undone
from provisioning.core.states import TaskState
from provisioning.core.upstream import matching, split
from provisioning.core.workflow import Plan, Task, TaskCheckpoint, Workflow

Result = Callable[[str], Any]
"""The result of a task that has succeeded, by its id."""


def rescued(plan: Plan, checkpoints: Mapping[str, TaskCheckpoint], result: Result) -> Workflow | None:
    """The workflow of the tasks that have not succeeded, or were undone; None where there is none.

    Conditions on what has been found out are decided. It waits for nothing that is done, and refers to nothing of it.
    """
    graph = Graph(plan.workflow.tasks)
    gone = undone(checkpoints)
    done = {task_id for task_id, c in checkpoints.items() if c.state is TaskState.SUCCEEDED and task_id not in gone}
    left = [task for task in plan.workflow.tasks if task.id not in done]
    out = _out(left, graph, done, result)
    left = [task for task in left if task.id not in out]
    names = {name for task in left for name in (task.id, *prefixes(task.id))}
    tasks = tuple(_freed(task, names, graph, done, result, plan) for task in left)
    if not tasks:
        return None
    head = {"not_before": None, "expires_at": None, "id": None}
    return msgspec.structs.replace(plan.workflow, tasks=tasks, **head)


def _out(left: list[Task], graph: Graph, done: set[str], result: Result) -> set[str]:
    """The tasks whose condition is known not to be met, and those that need their success, directly or not."""
    tasks = {graph.index[task.id]: task for task in left}
    out: set[str] = set()
    names: set[str] = set()
    for task in (tasks[i] for i in graph.order if i in tasks):
        unmet = task.when is not None and task.when.task in done and not _is_met(task, result)
        if unmet or not names.isdisjoint(task.depends_on):
            out.add(task.id)
            names |= {task.id, *prefixes(task.id)}
    return out


def _is_met(task: Task, result: Result) -> bool:
    assert task.when is not None
    try:
        value = value_at({"result": result(task.when.task)}, tuple(task.when.path.split(".")), ("when",))
    except BadReference:
        return True  # let the task say so itself
    return bool(value == task.when.equals) and isinstance(value, bool) is isinstance(task.when.equals, bool)


def _freed(  # noqa: PLR0913 - the parts of a workflow
    task: Task, names: set[str], graph: Graph, done: set[str], result: Result, plan: Plan
) -> Task:
    changes: dict[str, Any] = {
        "depends_on": tuple(name for name in task.depends_on if name in names),
        "after": tuple(name for name in task.after if name in names),
        "when": task.when if task.when and task.when.task not in done else None,
    }
    if task.references:
        params = _filled(task.params, graph, done, result, plan)
        left = references(params)
        changes["params"] = params if left else literal(params)
        changes["references"] = tuple(".".join(words) for words in left)
    return msgspec.structs.replace(task, **changes)


def _filled(template: Any, graph: Graph, done: set[str], result: Result, plan: Plan) -> Any:
    """The template with what is known in its place; of several tasks, what is known beside what is not yet."""

    def value_of(reference: Reference) -> Any:
        if reference[0] != "tasks":
            return UNKNOWN
        of, rest = split(reference, graph)
        found = [graph.names[i] for i in matching(of, graph)]
        if not done.issuperset(found):
            return UNKNOWN
        values = [value_at(result(task_id), rest, reference) for task_id in found]
        return values if "*" in of else values[0]

    if isinstance(template, dict):
        return {key: _filled(item, graph, done, result, plan) for key, item in template.items()}
    if isinstance(template, list):
        return [_filled(item, graph, done, result, plan) for item in template]
    if isinstance(template, str) and "${" in template:
        filled = substituted(template, value_of)
        return _in_parts(filled, graph, done, result) if filled == template else filled
    return template


def _in_parts(template: str, graph: Graph, done: set[str], result: Result) -> Any:
    """A reference to several tasks, some of which are done, as a list of values and references."""
    found = references(template)
    if len(found) != 1 or named(found[0]) != template or found[0][0] != "tasks":
        return template
    of, rest = split(found[0], graph)
    if "*" not in of:
        return template
    ids = [graph.names[i] for i in matching(of, graph)]
    return [
        escaped(value_at(result(task_id), rest, found[0]))
        if task_id in done
        else named(("tasks", *task_id.split("."), "result", *rest))
        for task_id in ids
    ]
