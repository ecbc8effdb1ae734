"""Operations as values: what a task may do, with typed params, and the check of params against them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from provisioning.core.identifiers import Digest, Executing, OperationName
from provisioning.errors import NotFound, Problem


class Param(msgspec.Struct, frozen=True, omit_defaults=True):
    """One parameter of an operation, as its Nushell signature says."""

    name: str
    schema: dict[str, Any]
    """JSON Schema (2020-12) of one value."""
    positional: bool
    required: bool
    rest: bool = False
    default: Any = None
    description: str = ""


class Operation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a task does: one annotated Nushell command. `servers.create` is `servers/create.nu`."""

    name: OperationName
    command: str
    """Name of the exported Nushell command."""
    summary: str
    description: str
    params: tuple[Param, ...]
    result_schema: dict[str, Any] | None
    """JSON Schema of the result; None where the operation returns nothing."""
    idempotent: bool = False
    timeout_seconds: float | None = None
    retries: int = 0
    exclusive: tuple[str, ...] = ()
    """Target templates over the params that only one attempt may hold, such as `server/{name}`."""
    shared: tuple[str, ...] = ()
    undo: OperationName | None = None
    probe: OperationName | None = None
    check: str | None = None
    """Name of the switch param that says what would change."""
    secret: tuple[str, ...] = ()
    plans: bool = False
    group: str | None = None
    executor: Executing | None = None
    """Where its attempts are made, unless the task or the config says otherwise."""

    @property
    def domain(self) -> str:
        """The folder in nulib: `servers`."""
        return self.name.partition(".")[0]

    @property
    def verb(self) -> str:
        """The file in its folder: `create`."""
        return self.name.partition(".")[2]

    def params_schema(self) -> dict[str, Any]:
        """The JSON Schema of the params object; nothing but declared params is allowed."""
        return {
            "type": "object",
            "additionalProperties": False,
            "required": [param.name for param in self.params if param.required],
            "properties": {param.name: dict(param.schema) for param in self.params},
        }

    def filled(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Give every parameter a value, in the order of the signature: Nushell gets all of them.

        A null passed to a typed flag would not apply the flag's default.
        """
        return {param.name: params.get(param.name, [] if param.rest else param.default) for param in self.params}


class Catalogue(msgspec.Struct, frozen=True, omit_defaults=True):
    """All operations of one nulib tree, and the files that could not be read."""

    digest: Digest
    """Digest of the merged tree and of the Nushell version that read it."""
    operations: dict[OperationName, Operation]
    broken: tuple[Problem, ...] = ()

    def operation(self, name: str) -> Operation:
        """The operation of that name; NotFound offers the nearest names."""
        found = self.operations.get(name)
        if found is None:
            raise NotFound(f"no operation is called {name!r}", hint=self.nearest_hint(name))
        return found

    def nearest_hint(self, name: str) -> str:
        """What to do about an unknown operation name."""
        hint = nearest_hint(name, self.operations)
        damaged = [problem.file for problem in self.broken if problem.field == name]
        if damaged:
            hint = f"{damaged[0]} has errors; see: provisioning operation check"
        return hint or "see: provisioning operation list"


def singular(domain: str) -> str:
    """The noun of a domain of nulib: `servers` is `server`, `selftest` is itself."""
    return domain[:-1] if domain.endswith("s") and not domain.endswith("ss") else domain


def filled(template: str, params: Mapping[str, Any]) -> str:
    """The target that a template such as `server/{name}` means with these params."""
    return re.sub(r"\{([^{}]*)\}", lambda word: str(params.get(word[1])), template)


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """A sentence that offers up to three known names near to an unknown one, or nothing."""
    import difflib  # only for those who mistype

    names = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(names)}?" if names else ""
