"""Who may run what: grants of operators, operations and infras, on values alone. What no grant covers is denied."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from provisioning.core.catalogue import Operation, nearest_hint
from provisioning.core.conformity import credential_of
from provisioning.core.workflow import Task
from provisioning.decoding import converted
from provisioning.errors import Invalid, Problem


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """These operators may run these operations in these infras. Texts are patterns: `*` is anything, `servers.*`."""

    operators: tuple[str, ...]
    operations: tuple[str, ...]
    infras: tuple[str, ...] = ("*",)
    params: dict[str, Any] = {}
    """Params that the task must have, with these values; a text is a pattern of texts."""
    credentials: tuple[str, ...] = ()
    """Secrets that its params may name; none where it is left out."""

    def covers(self, operator: str, operation: str, infra: str) -> bool:
        """Whether it is about this operator, operation and infra."""
        return _matches(operator, self.operators) and _matches(operation, self.operations) and self._in(infra)

    def _in(self, infra: str) -> bool:
        return _matches(infra, self.infras)

    def unmet(self, params: dict[str, Any]) -> list[str]:
        """The pinned params that are missing or have another value, and those that name a secret without a grant."""
        unmet = [name for name, pin in self.params.items() if name not in params or not _fits(params[name], pin)]
        named = ((name, credential_of(value)) for name, value in params.items())
        return unmet + [name for name, secret in named if secret and not _matches(secret, self.credentials)]


class Authority(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All grants. One without any denies everything."""

    grant: tuple[Grant, ...] = ()

    def refusals(
        self, operator: str, infra: str, tasks: Iterable[Task], operations: Mapping[str, Operation]
    ) -> list[Problem]:
        """What no grant covers; a manifest is granted as a whole or not at all. Params are as they will be used."""
        found = []
        for index, task in enumerate(tasks):
            for operation, params in _calls(task, operations):
                if text := self.refusal(operator, operation, infra, params):
                    field = f"tasks.{task.id}" if task.id else f"tasks[{index}]"
                    hint = f"ask for a grant; see: provisioning authority explain {operator} {operation}"
                    found.append(Problem("not-granted", text, hint, field=field))
        return found

    def refusal(self, operator: str, operation: str, infra: str, params: dict[str, Any]) -> str:
        """Why the operator may not run the operation so; empty where a grant covers it."""
        near = [grant for grant in self.grant if grant.covers(operator, operation, infra)]
        if any(not grant.unmet(params) for grant in near):
            return ""
        what = f"{operator} may not run {operation} in infra {infra}"
        if near:
            fewest: list[str] = min((grant.unmet(params) for grant in near), key=len)
            return f"{what} with this {' and '.join(fewest)}"
        return what


def _calls(task: Task, operations: Mapping[str, Operation]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a task may call: its operation, and an undo of its own; the undo of the operation itself comes with it."""
    yield task.operation, task.params
    known = operations.get(task.operation)
    undo = task.undo
    if undo is not None and (undo.params is not None or known is None or undo.operation != known.undo):
        yield undo.operation, task.params if undo.params is None else undo.params


def _matches(text: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _fits(value: Any, pin: Any) -> bool:
    if isinstance(value, str) and isinstance(pin, str):
        return "${" not in value and fnmatchcase(value, pin)  # what a reference stands for is not known yet
    if isinstance(value, bool) or isinstance(pin, bool):  # True == 1
        return value is pin
    return bool(value == pin)


def read(text: str, file: str) -> Authority:
    """The grants of an authority.toml; Invalid says what is wrong with it. Nothing is taken half."""
    hint = "each [[grant]] has operators, operations, and optionally infras and params"
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid([Problem("bad-authority", f"it is not TOML: {str(error)[:200]}", hint, file)]) from None
    for index, grant in enumerate(document.get("grant", ()) if isinstance(document.get("grant"), list) else ()):
        unknown = grant.keys() - set(Grant.__struct_fields__) if isinstance(grant, dict) else set()
        for key in sorted(unknown):
            offer = nearest_hint(key, Grant.__struct_fields__) or hint
            raise Invalid([Problem("bad-authority", f"unknown key {key[:60]!r}", offer, file, None, f"grant[{index}]")])
    try:
        found = converted(document, Authority)
    except msgspec.ValidationError as error:
        raise Invalid([Problem("bad-authority", str(error), hint, file)]) from None
    for grant in found.grant:
        if not (grant.operators and grant.operations and grant.infras):
            raise Invalid([Problem("bad-authority", "a grant with an empty list grants nothing", hint, file)])
        if any(isinstance(pin, float) and not math.isfinite(pin) for pin in grant.params.values()):
            raise Invalid([Problem("bad-authority", "a pinned number must be finite", hint, file)])
    return found
