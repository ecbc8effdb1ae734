"""What is carried away holds no secrets that are known as such: those that have names, those that stand in params which
operations declare secret, and those under keys that tell of one. They are taken out by name and by value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from provisioning.core.conformity import credential_of
from provisioning.core.redaction import MIN_SECRET_CHARS, Redactor
from provisioning.core.workflow import Plan, Task

HIDDEN = "param"
"""Stands for the name of a secret that was written out and has none."""
_TELLING = re.compile(r"(password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key)s?\Z", re.IGNORECASE)
"""The end of a key under which somebody has written out a secret, though no operation declares it one."""


def masked(params: Mapping[str, Any], secret: Sequence[str]) -> dict[str, Any]:
    """The params without the values of those that are secret."""
    return {name: "***" if name in secret and value is not None else value for name, value in params.items()}


def redactor_of(plan: Plan | None, named: Mapping[str, str] | None = None) -> Redactor:
    """Takes out the values of secret params that a plan has written out: no manifest may, but a file may say anything.

    `named` are the secrets that have names, as far as they are known here. The worker has taken them out of all that it
    wrote; they are looked for once more.
    """
    return Redactor({**written_out(plan), **(named or {})})


def written_out(plan: Plan | None) -> dict[str, str]:
    """The texts that stand in secret params of a plan, each by a name for it."""
    if plan is None:
        return {}
    found = (text for value in _literals(plan) for text in _texts(value))
    values = sorted({text for text in found if len(text) >= MIN_SECRET_CHARS})
    return {HIDDEN if len(values) == 1 else f"{HIDDEN}-{i}": text for i, text in enumerate(values, 1)}


def credentials_of(plan: Plan | None) -> set[str]:
    """The names of the secrets that a plan uses."""
    params = (params for task in plan.workflow.tasks for _, params in _calls(task)) if plan else ()
    return {name for given in params for value in given.values() if (name := credential_of(value)) is not None}


def shown_params(plan: Plan, task: Task) -> dict[str, Any]:
    """A task's params: of a secret the name alone, `***` where somebody has written it out."""
    return _without_literals(plan, task.operation, task.params)


def without_literals(plan: Plan) -> Plan:
    """The plan with `***` for each secret that was written out, however short."""

    def clean(task: Task) -> Task:
        undo = task.undo
        if undo and undo.params:
            undo = replace(undo, params=_without_literals(plan, undo.operation, undo.params))
        return replace(task, params=shown_params(plan, task), undo=undo)

    return replace(plan, workflow=replace(plan.workflow, tasks=tuple(map(clean, plan.workflow.tasks))))


def _without_literals(plan: Plan, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
    secret = [name for name in _secret(plan, operation) if credential_of(params.get(name)) is None]
    return {name: without_telling(value, name) for name, value in masked(params, secret).items()}


def without_telling(value: Any, key: str = "") -> Any:
    """The value, which stands under this key, with `***` under each key that tells of a secret."""
    if _tells(value, key):
        return "***"
    if isinstance(value, dict):
        return {name: without_telling(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [without_telling(each) for each in value]
    return value


def _tells(value: Any, key: str) -> bool:
    """Whether the value is a secret by its key. A credential says by itself that it is but a name."""
    return bool(_TELLING.search(key)) and not isinstance(value, bool | None) and credential_of(value) is None


def _secret(plan: Plan, operation: str) -> Sequence[str]:
    return plan.operations[operation].secret if operation in plan.operations else ()


def _calls(task: Task) -> list[tuple[str, dict[str, Any]]]:
    """The operations that a task may call, with their params."""
    undo = [(task.undo.operation, task.undo.params)] if task.undo and task.undo.params else []
    return [(task.operation, task.params), *undo]


def _literals(plan: Plan) -> Iterator[Any]:
    for task in plan.workflow.tasks:
        for operation, params in _calls(task):
            names = [name for name in _secret(plan, operation) if name in params]
            yield from (params[name] for name in names if credential_of(params[name]) is None)
            yield from _telling(params)


def _telling(value: Any, key: str = "") -> Iterator[Any]:
    """What stands under keys that tell of a secret."""
    if _tells(value, key):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _telling(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from _telling(each)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
