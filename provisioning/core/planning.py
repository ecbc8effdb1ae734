"""What a planning operation returns, made into the tasks that stand in the place of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from provisioning.core.catalogue import Operation
from provisioning.core.conformity import as_declared, schema_findings
from provisioning.core.graph import graph_findings
from provisioning.core.identifiers import TASK_ID
from provisioning.core.locate import Finding, settle, shown
from provisioning.core.references import Reference, references, renamed
from provisioning.core.workflow import Task
from provisioning.errors import ProvisioningError

if TYPE_CHECKING:
    from provisioning.core.tasks import Head, Look

LEVELS = 3
"""So deep what a planning operation plans may be planned by another."""
MOST = 100
"""Planning operations that one manifest may ask: each is a process, before anything is accepted."""


def planned_tasks(task: Task, operation: Operation, head: Head, findings: list[Finding], look: Look) -> list[Task]:
    """The tasks that the operation plans, named behind the task's own id; what is wrong with them goes to `findings`.

    They wait for what the task waits for, have its policies where they say none, and see none but themselves.
    """
    from provisioning.core.tasks import Sound, Tasks, with_infra

    look.plans.append(operation.name)
    if look.level >= LEVELS or len(look.plans) > MOST:
        message = f"more than {MOST} planning operations, or more than {LEVELS} inside each other"
        findings.append(Finding("too-large", message, "plan less at once"))
        return []
    params = operation.filled(as_declared(with_infra(task.params, operation, head.infra), operation.params_schema()))
    assert look.sources.plan is not None
    try:
        tables = _tables(look.sources.plan(operation, params))
    except ProvisioningError as error:
        findings.append(Finding("bad-plan", error.message, error.hint))
        return []
    findings += settle({"tasks": tables}, limits=look.limits)
    # As a manifest of its own: one schema says what a task is.
    findings += schema_findings(look.schema, {"schema": 1, "name": "planned", "tasks": tables}) if tables else []
    if findings:
        return []
    inner = Tasks(head, findings, look._replace(level=look.level + 1))
    for index, table in enumerate(tables):
        inner.read(table, index, Sound(()), _policies_of(task))
    found = inner.finished()
    findings += graph_findings(found)
    moved = [_behind(task, each, findings) for each in found]
    return [] if findings else moved


def _tables(result: Any) -> list[Any]:
    """The tables of tasks in a result. Nushell has no key that may be absent: null says the same."""
    if not isinstance(result, list):
        raise ProvisioningError(f"it returned {shown(result)}, and not a list of tasks")
    return [
        {key: item for key, item in table.items() if item is not None} if isinstance(table, dict) else table
        for table in result
    ]


def _policies_of(task: Task) -> dict[str, Any]:
    fields = ("timeout_seconds", "retry", "on_interrupt", "expected_seconds", "on_failure", "group", "executor")
    return {name: value for name in fields if (value := getattr(task, name)) is not None}


def _behind(task: Task, inner: Task, findings: list[Finding]) -> Task:
    """A planned task under its name in the whole workflow, and so all that it names."""
    task_id = f"{task.id}.{inner.id}"
    if not TASK_ID.match(task_id):
        findings.append(Finding("bad-value", f"the id {shown(task_id)} is too long", "plan shorter ids"))
    depends_on = (*task.depends_on, *(f"{task.id}.{name}" for name in inner.depends_on))
    after = (*task.after, *(f"{task.id}.{name}" for name in inner.after))
    when = inner.when and msgspec.structs.replace(inner.when, task=f"{task.id}.{inner.when.task}")
    moved = msgspec.structs.replace(inner, id=task_id, depends_on=depends_on, after=after, when=when)
    if not inner.references:
        return moved

    def behind(reference: Reference) -> Reference:
        return ("tasks", *task.id.split("."), *reference[1:]) if reference[0] == "tasks" else reference

    params = renamed(inner.params, behind)
    return msgspec.structs.replace(
        moved, params=params, references=tuple(".".join(words) for words in references(params))
    )
