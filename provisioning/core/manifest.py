"""Manifest text to a `Workflow`, or `InvalidManifest` with every problem at once; and back to text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from provisioning.core.catalogue import Catalogue, Operation
from provisioning.core.clauses import planned_undo, undo_findings
from provisioning.core.conformity import as_declared, compiled, param_findings, schema_findings, validate_params
from provisioning.core.graph import critical_path, graph_findings, sparing, waves
from provisioning.core.identifiers import SLURM
from provisioning.core.locate import Finding, decode, problems, shown
from provisioning.core.locate import Limits as Limits  # part of what this module offers
from provisioning.core.locate import Locator as Locator
from provisioning.core.policies import duration, policies, seconds
from provisioning.core.references import escaped
from provisioning.core.tasks import Head, Look, Sound, Sources, Tasks, with_infra
from provisioning.core.upstream import reference_findings
from provisioning.core.workflow import Retry, Task, Workflow
from provisioning.core.writing import write
from provisioning.errors import InvalidManifest, Problem

__all__ = [
    "CODES",
    "DEFAULT_TIMEOUT_SECONDS",
    "Limits",
    "Locator",
    "Sources",
    "check",
    "compiled",
    "critical_path",
    "duration",
    "parse",
    "planned",
    "read",
    "schema_findings",
    "seconds",
    "validate_params",
    "waves",
    "write",
]

CODES = {
    "empty": "nothing is in it",
    "too-large": "more bytes or tasks than the limits allow",
    "too-many-values": "more values than the limits allow",
    "too-deep": "more tables and lists inside each other than the limits allow",
    "not-utf8": "bytes that are not UTF-8, or a byte order mark",
    "not-toml": "the syntax of TOML is broken",
    "not-json": "the syntax of JSON is broken",
    "duplicate-key": "a key is twice in one table",
    "unknown-key": "a key that the schema does not have",
    "missing-key": "a key that must be there",
    "wrong-type": "a text where a number belongs, and the like",
    "bad-value": "the right type, and a value that cannot be",
    "not-finite": "a number that is infinite or none",
    "too-large-number": "a whole number that does not fit into 64 bits",
    "half-character": "a text with half of a surrogate pair",
    "expired-before-start": "expires_at is not after not_before",
    "duplicate-id": "two tasks have one id",
    "unknown-dependency": "depends_on or after names no task of the manifest",
    "self-dependency": "a task waits for itself",
    "cycle": "tasks wait for each other in a ring",
    "unknown-infra": "no such infra, or its settings cannot be used",
    "unknown-operation": "the catalogue has no such operation",
    "bad-params": "params that the operation's signature refuses",
    "bad-reference": "a reference ${…} that names nothing, or what is not sure to be there",
    "bad-plan": "a planning operation that failed",
    "literal-secret": "a secret that is written out where its name belongs",
}
"""Every code that a problem of a manifest can have. Codes are never renamed: receipts and scripts rely on them."""

DEFAULT_TIMEOUT_SECONDS = 3600.0
"""Of an attempt where neither the task, the manifest nor the operation says one."""

_LIMITS = Limits()
_SOURCES = Sources()


def parse(data: bytes, *, form: str, file: str, schema: dict[str, Any], limits: Limits = _LIMITS) -> Workflow:
    """The workflow that the text (`form`: "toml" or "json") asks for, its graph sound. `file` is what messages say."""
    return _draft(data, form, file, Look(schema, limits, None, _SOURCES, [])).accepted(file)


def read(  # noqa: PLR0913 - what a text means hangs on all of them
    data: bytes,
    *,
    form: str,
    file: str,
    schema: dict[str, Any],
    catalogue: Catalogue,
    limits: Limits = _LIMITS,
    sources: Sources = _SOURCES,
) -> Workflow:
    """`parse` and `check` in one, so that the problems of both are reported at once."""
    draft = _draft(data, form, file, Look(schema, limits, catalogue, sources, []))
    known = {each.path for each in draft.findings}
    for finding in draft.tasks.placed(_operation_findings(draft.tasks.found, catalogue, slurm=sources.slurm)):
        if not any(finding.path[:end] in known for end in range(3, len(finding.path) + 1)):
            draft.findings.append(finding)
    return draft.accepted(file)


def check(workflow: Workflow, catalogue: Catalogue, *, file: str = "", locate: Locator | None = None) -> list[Problem]:
    """What the catalogue says against a workflow: unknown operations, params, a probe that is not there."""
    findings = list(_operation_findings(workflow.tasks, catalogue))
    names = {index: task.id for index, task in enumerate(workflow.tasks)}
    return problems(findings, file=file, locator=locate, names=names) if findings else []


class _Draft(NamedTuple):
    """A manifest as far as it could be understood; what is wrong with a task is left out of it."""

    locator: Locator
    head: dict[str, Any]
    tasks: Tasks
    findings: list[Finding]

    def accepted(self, file: str) -> Workflow:
        if self.findings:
            raise InvalidManifest(problems(self.findings, file=file, locator=self.locator, names=self.tasks.names()))
        return Workflow(tasks=tuple(self.tasks.found), **self.head)


def _draft(data: bytes, form: str, file: str, look: Look) -> _Draft:
    text, document, findings = decode(data, form=form, file=file, limits=look.limits)
    listed = document.get("tasks")
    tables: list[Any] = listed if isinstance(listed, list) else []
    if len(tables) > look.limits.tasks:
        hint = "split it into several manifests"
        message = f"the manifest has {len(tables)} tasks, and {look.limits.tasks} are allowed"
        raise InvalidManifest([Problem("too-large", message, hint, file, None, "tasks")])
    findings += schema_findings(look.schema, document)
    sound = Sound(findings)
    defaults = policies(sound.part(document.get("defaults"), ("defaults",)), {}, ("defaults",), findings)
    head = _head(sound.part(document, ()), findings)
    tasks = Tasks(Head(head.get("name", ""), head.get("infra", "default")), findings, look)
    for index, table in enumerate(tables):
        tasks.read(table, index, sound, defaults)
    found = tasks.finished()
    findings += tasks.placed(graph_findings(found))
    if tables and not found and not findings:
        hint = "a for_each of something, or a plan of something"
        findings.append(Finding("bad-value", "no task is left of it", hint, ("tasks",)))
    if not findings:
        findings += tasks.placed(reference_findings(found, look.catalogue))
    return _Draft(Locator(text, form), head, tasks, findings)


def _head(table: dict[str, Any], findings: list[Finding]) -> dict[str, Any]:
    head = {key: item for key, item in table.items() if key not in {"schema", "defaults", "tasks"}}
    head |= {key: int(head[key]) for key in ("priority", "max_parallel") if key in head}
    for key in [key for key in ("not_before", "expires_at") if key in head]:
        try:
            head[key] = datetime.fromisoformat(head[key]).astimezone(UTC)
        except (ValueError, OverflowError):
            hint = "a date and time that exist, such as 2026-12-01T02:00:00Z"
            findings.append(Finding("bad-value", f"{shown(head.pop(key))} is no instant", hint, (key,)))
    if "not_before" in head and "expires_at" in head and head["expires_at"] <= head["not_before"]:
        message = "it would expire before it may start"
        findings.append(
            Finding("expired-before-start", message, "make expires_at later than not_before", ("expires_at",))
        )
    return head


def _operation_findings(tasks: Sequence[Task], catalogue: Catalogue, *, slurm: bool = True) -> Iterator[Finding]:
    yield from undo_findings(tasks, catalogue)
    offer = sparing(catalogue.nearest_hint, len(catalogue.operations))
    for index, task in enumerate(tasks):
        operation = catalogue.operations.get(task.operation)
        if operation is not None:
            yield from param_findings(
                operation, task.params, ("tasks", index, "params"), templates=bool(task.references)
            )
            if task.on_interrupt == "probe" and operation.probe not in catalogue.operations:
                message = f"{operation.name} has no probe"
                yield Finding("bad-value", message, "choose rerun or fail", ("tasks", index, "on_interrupt"))
            yield from _executor_findings(task, operation, index, slurm=slurm)
        elif task.operation:
            hint = offer(task.operation) or "see: provisioning operation list"
            message = f"no operation is called {shown(task.operation)}"
            yield Finding("unknown-operation", message, hint, ("tasks", index, "operation"))


def _executor_findings(task: Task, operation: Operation, index: int, *, slurm: bool) -> Iterator[Finding]:
    """A task that asks for Slurm where it cannot have it."""
    path = ("tasks", index, "executor" if task.executor else "operation")
    if (task.executor or operation.executor) == SLURM and not slurm:
        message = f"{task.id} is for Slurm, and no cluster is configured"
        yield Finding("bad-value", message, 'set slurm.directory in the config, or executor = "local"', path)
    elif task.executor == SLURM and (operation.exclusive or operation.shared):
        message = f"{operation.name} holds targets, which only this host can"
        yield Finding("bad-value", message, 'leave out executor = "slurm"', path)


def planned(workflow: Workflow, catalogue: Catalogue) -> Workflow:
    """Every task with all params and policies: its own or the manifest's, else the operation's, else the built-in."""
    tasks = []
    for task in workflow.tasks:
        operation = catalogue.operation(task.operation)
        tasks.append(
            msgspec.structs.replace(
                task,
                params=_filled(task, operation, workflow.infra),
                timeout_seconds=task.timeout_seconds or operation.timeout_seconds or DEFAULT_TIMEOUT_SECONDS,
                retry=task.retry or Retry(max_attempts=operation.retries + 1),
                group=task.group or operation.group,
                undo=planned_undo(task, operation, catalogue, DEFAULT_TIMEOUT_SECONDS),
                on_interrupt=task.on_interrupt or _on_interrupt(operation, catalogue),
            )
        )
    return msgspec.structs.replace(workflow, tasks=tuple(tasks))


def _filled(task: Task, operation: Operation, infra: str) -> dict[str, Any]:
    """A value for every param, in the order of the signature."""
    given = as_declared(with_infra(task.params, operation, infra), operation.params_schema())
    if not task.references:
        return operation.filled(given)
    return {name: given.get(name, escaped(value)) for name, value in operation.filled(given).items()}


def _on_interrupt(operation: Operation, catalogue: Catalogue) -> str:
    if operation.idempotent:
        return "rerun"
    return "probe" if operation.probe in catalogue.operations else "fail"
