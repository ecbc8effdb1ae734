"""Manifest text to a `Workflow`, or `InvalidManifest` with every problem at once; and back to text."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from provisioning.core.catalogue import Catalogue, Operation
from provisioning.core.conformity import as_declared, compiled, param_findings, schema_findings, validate_params
from provisioning.core.graph import critical_path, graph_findings, sparing, waves
from provisioning.core.locate import Finding, decode, problems, shown
from provisioning.core.locate import Limits as Limits  # part of what this module offers
from provisioning.core.locate import Locator as Locator
from provisioning.core.tokens import Path
from provisioning.core.workflow import Retry, Task, Workflow
from provisioning.errors import InvalidManifest, Problem

__all__ = [
    "CODES",
    "DEFAULT_TIMEOUT_SECONDS",
    "Limits",
    "Locator",
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
    "too-deep": "more tables and lists inside each other than the limits allow",
    "not-utf8": "bytes that are not UTF-8, or a byte order mark",
    "not-toml": "the syntax of TOML is broken",
    "not-json": "the syntax of JSON is broken",
    "duplicate-key": "a key is twice in one table",
    "unknown-key": "a key that the schema does not have",
    "missing-key": "a key that must be there",
    "wrong-type": "a text where a number belongs, and the like",
    "bad-value": "the right type, and a value that cannot be",
    "not-yet": "part of manifests, but this version cannot do it",
    "expired-before-start": "expires_at is not after not_before",
    "duplicate-id": "two tasks have one id",
    "unknown-dependency": "depends_on or after names no task of the manifest",
    "self-dependency": "a task waits for itself",
    "cycle": "tasks wait for each other in a ring",
    "unknown-operation": "the catalogue has no such operation",
    "bad-params": "params that the operation's signature refuses",
}
"""Every code that a problem of a manifest can have. Codes are never renamed: receipts and scripts rely on them."""

NOT_YET = frozenset({"for_each", "undo", "group", "when"})
"""Keys that a later version understands; refused, since a manifest that is half obeyed does harm."""

DEFAULT_TIMEOUT_SECONDS = 3600.0
"""Of an attempt where neither the task, the manifest nor the operation says one."""

_UNIT_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_LIMITS = Limits()


def parse(data: bytes, *, form: str, file: str, schema: dict[str, Any], limits: Limits = _LIMITS) -> Workflow:
    """The workflow that the text (`form`: "toml" or "json") asks for, its graph sound. `file` is what messages say."""
    return _draft(data, form=form, file=file, schema=schema, limits=limits).accepted(file)


def read(  # noqa: PLR0913 - what a text means hangs on all of them
    data: bytes, *, form: str, file: str, schema: dict[str, Any], catalogue: Catalogue, limits: Limits = _LIMITS
) -> Workflow:
    """`parse` and `check` in one, so that the problems of both are reported at once."""
    draft = _draft(data, form=form, file=file, schema=schema, limits=limits)
    known = {each.path for each in draft.findings}
    for finding in _operation_findings(draft.tasks, catalogue):
        if not any(finding.path[:end] in known for end in range(3, len(finding.path) + 1)):
            draft.findings.append(finding)
    return draft.accepted(file)


def check(workflow: Workflow, catalogue: Catalogue, *, file: str = "", locate: Locator | None = None) -> list[Problem]:
    """What the catalogue says against a workflow: unknown operations, params, a probe that is not there."""
    findings = list(_operation_findings(workflow.tasks, catalogue))
    return problems(findings, file=file, locator=locate, names=_names(workflow.tasks)) if findings else []


def _names(tasks: Sequence[Task]) -> dict[int, str]:
    """The ids by which messages name tasks, by index; of two tasks with one id only the first has it."""
    return {index: name for name, index in {task.id: i for i, task in reversed([*enumerate(tasks)])}.items()}


class _Draft(NamedTuple):
    """A manifest as far as it could be understood; what is wrong with a task is left out of it."""

    locator: Locator
    head: dict[str, Any]
    tasks: list[Task]
    findings: list[Finding]

    def accepted(self, file: str) -> Workflow:
        if self.findings:
            raise InvalidManifest(problems(self.findings, file=file, locator=self.locator, names=_names(self.tasks)))
        return Workflow(tasks=tuple(self.tasks), **self.head)


def _draft(data: bytes, *, form: str, file: str, schema: dict[str, Any], limits: Limits) -> _Draft:
    text, document, findings = decode(data, form=form, file=file, limits=limits)
    listed = document.get("tasks")
    tasks: list[Any] = listed if isinstance(listed, list) else []
    if len(tasks) > limits.tasks:
        hint = "split it into several manifests"
        message = f"the manifest has {len(tasks)} tasks, and {limits.tasks} are allowed"
        raise InvalidManifest([Problem("too-large", message, hint, file, None, "tasks")])
    findings += (_later(each, document) for each in schema_findings(schema, document))
    for index, task in enumerate(tasks):
        if isinstance(task, dict) and isinstance(task.get("params"), dict):
            task["params"] = _literal(task["params"], ("tasks", index, "params"), findings)
    sound = _Sound(findings)
    defaults = _policies(sound.part(document.get("defaults"), ("defaults",)), {}, ("defaults",), findings)
    made = [_task(sound, task, ("tasks", index), defaults, findings) for index, task in enumerate(tasks)]
    head = _head(sound.part(document, ()), findings)
    findings += graph_findings(made)
    return _Draft(Locator(text, form), head, made, findings)


def _later(finding: Finding, document: dict[str, Any]) -> Finding:
    """Says so where the schema refuses what only a later version does."""
    name = finding.path[-1] if finding.path else ""
    if finding.path == ("on_failure",):
        name = "rollback" if document["on_failure"] == "rollback" else ""
    elif finding.code != "unknown-key" or name not in NOT_YET:
        name = ""
    return Finding("not-yet", f"this version does not have {name!r}", "leave it out", finding.path) if name else finding


class _Sound:
    """Leaves out of tables and lists what findings so far speak against."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self._bad: defaultdict[Path, set[str | int]] = defaultdict(set)
        for path in (each.path for each in findings):
            for end in range(len(path)):
                self._bad[path[:end]].add(path[end])

    def part(self, table: object, path: Path) -> dict[str, Any]:
        if not isinstance(table, dict):
            return {}
        bad = self._bad.get(path)
        return {key: item for key, item in table.items() if key not in bad} if bad else table

    def texts(self, table: object, path: Path) -> tuple[str, ...]:
        items = table.get(path[-1]) if isinstance(table, dict) else None
        bad = self._bad.get(path, ())
        return tuple(item for k, item in enumerate(items) if k not in bad) if isinstance(items, list) else ()


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


def _task(sound: _Sound, raw: object, path: Path, defaults: dict[str, Any], findings: list[Finding]) -> Task:
    table = sound.part(raw, path)
    said = raw if isinstance(raw, dict) else {}
    return Task(
        id=table.get("id", ""),
        operation=table.get("operation", ""),
        params=said["params"] if isinstance(said.get("params"), dict) else {},
        depends_on=sound.texts(raw, (*path, "depends_on")),
        after=sound.texts(raw, (*path, "after")),
        **_policies(table, defaults, path, findings),
    )


def _policies(table: dict[str, Any], defaults: dict[str, Any], path: Path, findings: list[Finding]) -> dict[str, Any]:
    made = dict(defaults)
    if "timeout" in table:
        made["timeout_seconds"] = seconds(table["timeout"])
    if "expected" in table:
        made["expected_seconds"] = seconds(table["expected"])
    if "on_interrupt" in table:
        made["on_interrupt"] = table["on_interrupt"]
    if "retry" in table:
        made["retry"] = retry = _retry(table["retry"])
        if retry.max_delay_seconds < retry.initial_delay_seconds:
            hint = "make max_delay at least as long as initial_delay"
            findings.append(
                Finding("bad-value", "max_delay is below initial_delay", hint, (*path, "retry", "max_delay"))
            )
    return made


def _retry(table: dict[str, Any]) -> Retry:
    first = seconds(table.get("initial_delay", "5s"))
    return Retry(
        max_attempts=int(table["max_attempts"]),
        backoff=table.get("backoff", "exponential"),
        initial_delay_seconds=first,
        max_delay_seconds=seconds(table["max_delay"]) if "max_delay" in table else max(300.0, first),
        on=tuple(table.get("on", ())),
    )


def seconds(duration: str) -> float:
    """The seconds of "1h30m"; the schema has checked its shape."""
    return sum(int(n) * _UNIT_MS[unit] for n, unit in re.findall(r"([0-9]+)(ms|[dhms])", duration)) / 1000


def duration(seconds: float) -> str:
    """The text of a duration, to the millisecond."""
    left, text = round(seconds * 1000), ""
    for unit, size in _UNIT_MS.items():
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _literal(value: Any, path: Path, findings: list[Finding]) -> Any:
    """A param as it is meant: `$${` is `${`. A reference, once there are any, is recognised here and nowhere else."""
    if isinstance(value, str):
        if "${" not in value:
            return value
        if re.search(r"(?<!\$)\$\{", value):
            hint = "write the value itself; a literal '${' is written '$${'"
            findings.append(Finding("not-yet", "this version does not have references ${…}", hint, path))
        return value.replace("$${", "${")
    if isinstance(value, dict):
        if value.keys() == {"credential"}:
            hint = "wait for a version that reads credentials; do not write the secret itself"
            findings.append(Finding("not-yet", "this version does not have credentials", hint, path))
        return {key: _literal(item, (*path, key), findings) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item, (*path, index), findings) for index, item in enumerate(value)]
    return value


def _operation_findings(tasks: Sequence[Task], catalogue: Catalogue) -> Iterator[Finding]:
    offer = sparing(catalogue.nearest_hint, len(catalogue.operations))
    for index, task in enumerate(tasks):
        operation = catalogue.operations.get(task.operation)
        if operation is not None:
            yield from param_findings(operation, task.params, ("tasks", index, "params"))
            if task.on_interrupt == "probe" and operation.probe not in catalogue.operations:
                message = f"{operation.name} has no probe"
                yield Finding("bad-value", message, "choose rerun or fail", ("tasks", index, "on_interrupt"))
        elif task.operation:
            hint = offer(task.operation) or "see: provisioning operation list"
            message = f"no operation is called {shown(task.operation)}"
            yield Finding("unknown-operation", message, hint, ("tasks", index, "operation"))


def planned(workflow: Workflow, catalogue: Catalogue) -> Workflow:
    """Every task with all params and policies: its own or the manifest's, else the operation's, else the built-in."""
    tasks = []
    for task in workflow.tasks:
        operation = catalogue.operation(task.operation)
        tasks.append(
            msgspec.structs.replace(
                task,
                params=operation.filled(as_declared(_with_infra(task, operation, workflow), operation.params_schema())),
                timeout_seconds=task.timeout_seconds or operation.timeout_seconds or DEFAULT_TIMEOUT_SECONDS,
                retry=task.retry or Retry(max_attempts=operation.retries + 1),
                on_interrupt=task.on_interrupt or _on_interrupt(operation, catalogue),
            )
        )
    return msgspec.structs.replace(workflow, tasks=tuple(tasks))


def _with_infra(task: Task, operation: Operation, workflow: Workflow) -> dict[str, Any]:
    """The task's params; one called `infra` is the workflow's where the task does not say it."""
    takes = any(param.name == "infra" for param in operation.params)
    return {"infra": workflow.infra, **task.params} if takes else task.params


def _on_interrupt(operation: Operation, catalogue: Catalogue) -> str:
    if operation.idempotent:
        return "rerun"
    return "probe" if operation.probe in catalogue.operations else "fail"


def write(workflow: Workflow, *, form: str) -> bytes:
    """The manifest (`form`: "toml" or "json") that `parse` reads as this workflow. InvalidManifest: a null in TOML."""
    head = {key: item for key in workflow.__struct_fields__ if (item := getattr(workflow, key)) is not None}
    document = {"schema": 1, **head, "tasks": [_written(task) for task in workflow.tasks]}
    if form == "json":
        return (json.dumps(document, indent=2, ensure_ascii=False, default=datetime.isoformat) + "\n").encode()
    import tomli_w

    try:
        return tomli_w.dumps(document).encode()
    except TypeError as error:
        raise InvalidManifest([Problem("bad-value", "TOML has no null", "write it as JSON")]) from error


def _written(task: Task) -> dict[str, Any]:
    table: dict[str, Any] = msgspec.to_builtins(task) | {"params": _escaped(task.params)}
    if task.timeout_seconds is not None:
        table["timeout"] = duration(table.pop("timeout_seconds"))
    if task.expected_seconds is not None:
        table["expected"] = duration(table.pop("expected_seconds"))
    if (retry := task.retry) is not None:
        longest = retry.max_delay_seconds
        table["retry"] = {"max_attempts": retry.max_attempts, "backoff": retry.backoff, "max_delay": duration(longest)}
        table["retry"]["initial_delay"] = duration(min(retry.initial_delay_seconds, longest))
        table["retry"] |= {"on": list(retry.on)} if retry.on else {}
    return table


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list) else value
