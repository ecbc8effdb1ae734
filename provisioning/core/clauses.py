"""What a task's table says besides its operation: on what condition it is done, and how it is undone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from provisioning.core.catalogue import Catalogue, Operation
from provisioning.core.conformity import param_findings
from provisioning.core.expansion import Each, dependencies
from provisioning.core.locate import Finding, shown
from provisioning.core.policies import policies
from provisioning.core.references import (
    UNKNOWN,
    BadReference,
    LookUp,
    Reference,
    named,
    references,
    schema_at,
    substituted,
)
from provisioning.core.tokens import Path
from provisioning.core.workflow import Condition, Retry, Task, Undo


def condition(table: dict[str, Any], each: Each | None, look_up: LookUp) -> Condition | None:
    """The condition of a task's table; BadReference where the task that it names cannot be told."""
    said = table.get("when")
    if not isinstance(said, dict) or not {"task", "path", "equals"} <= said.keys():
        return None
    names = dependencies((said["task"],), each, look_up)
    return Condition(names[0], said["path"], said["equals"]) if names else None


def undo(table: dict[str, Any], look_up: LookUp, path: Path, findings: list[Finding]) -> Undo | None:
    """The undo of a task's table, its params a template; BadReference where it refers to what there is not."""
    said = table.get("undo")
    if not isinstance(said, dict) or not isinstance(said.get("operation"), str):
        return None
    made = policies({key: said[key] for key in ("timeout", "retry") if key in said}, {}, path, findings)
    params = said.get("params")

    def value_of(reference: Reference) -> Any:
        if reference[0] != "task":
            return look_up(reference)
        if len(reference) > 1 and reference[1] in ("params", "result"):
            return UNKNOWN
        raise BadReference(
            f"{named(reference)} names nothing of the task", "write ${task.params.…} or ${task.result.…}"
        )

    if isinstance(params, dict):
        params = substituted(params, value_of)
    return Undo(said["operation"], params if isinstance(params, dict) else None, **made)


def planned_undo(task: Task, operation: Operation, catalogue: Catalogue, default_timeout: float) -> Undo | None:
    """How the task is undone: as it says, else by its operation's undo; None where there is none, or must be none."""
    said = task.undo or (Undo(operation.undo) if operation.undo in catalogue.operations else None)
    if said is None or task.preserve:
        return None
    by = catalogue.operation(said.operation)
    return msgspec.structs.replace(
        said,
        timeout_seconds=said.timeout_seconds or by.timeout_seconds or default_timeout,
        retry=said.retry or Retry(max_attempts=by.retries + 1),
    )


def undo_findings(tasks: Sequence[Task], catalogue: Catalogue) -> Iterator[Finding]:
    """What the catalogue says against undos, by the numbers of their tasks."""
    for index, task in enumerate(tasks):
        if task.undo is None:
            continue
        path: Path = ("tasks", index, "undo")
        by, operation = catalogue.operations.get(task.undo.operation), catalogue.operations.get(task.operation)
        if by is None:
            hint = catalogue.nearest_hint(task.undo.operation)
            message = f"no operation is called {shown(task.undo.operation)}"
            yield Finding("unknown-operation", message, hint, (*path, "operation"))
        elif task.undo.params is not None:
            yield from param_findings(by, task.undo.params, (*path, "params"), templates=True)
            yield from _undo_references(task, operation, (*path, "params"))


def _undo_references(task: Task, operation: Operation | None, path: Path) -> Iterator[Finding]:
    """What it takes from the task must be among its params, or in what its operation returns."""
    assert task.undo is not None
    for reference in references(task.undo.params) if operation else ():
        assert operation is not None
        known = {param.name: param.schema for param in operation.params}
        try:
            if reference[:2] == ("task", "params") and len(reference) > 2 and reference[2] not in known:
                raise BadReference(
                    f"{named(reference)}: {operation.name} has no such param", f"known are {', '.join(known)}"
                )
            if reference[:2] == ("task", "result"):
                if operation.result_schema is None:
                    raise BadReference(f"{operation.name} returns nothing", "take it from ${task.params.…}")
                schema_at(operation.result_schema, reference[2:], reference)
        except BadReference as error:
            yield Finding("bad-reference", error.message, error.hint, path)
