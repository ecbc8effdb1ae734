"""The source of an entry holds checked names and no value."""

from __future__ import annotations

from typing import Any

import pytest

from provisioning.core.catalogue import Operation, Param
from provisioning.execution.entries import entry_source
from provisioning.execution.signature import json_schema, parse_type


def param(name: str, kind: str, **more: Any) -> Param:
    fields: dict[str, Any] = {"positional": False, "required": False, "schema": json_schema(parse_type(kind))}
    return Param(name=name, **fields | more)


def created(*params: Param, name: str = "servers.create", command: str = "create-server") -> Operation:
    return Operation(name=name, command=command, summary="", description="", params=params, result_schema={})


def call_of(operation: Operation) -> str:
    [line] = [line for line in entry_source(operation).splitlines() if f"operation {operation.command}" in line]
    return line.strip()


def test_imports_its_own_operation_alone() -> None:
    lines = [line for line in entry_source(created()).splitlines() if "use " in line]
    assert lines == ["module operation { export use ../tree/servers/create.nu [create-server] }", "use operation"]


def test_passes_every_param() -> None:
    call = call_of(
        created(
            param("name", "string", positional=True, required=True),
            param("others", "list<string>", positional=True, rest=True),
            param("provider", "string", default="local"),
            param("dry-run", "bool", default=False),
        )
    )
    expected = (
        'operation create-server $params."name" ...$params."others" '
        '--provider=$params."provider" --dry-run=($params."dry-run" == true)'
    )
    assert expected in call


@pytest.mark.parametrize(
    ("kind", "conversion"),
    [
        ("duration", "into duration"),
        ("filesize", "into filesize"),
        ("datetime", "into datetime"),
        ("float", "into float"),
        ("int", "into int"),
        ("list<duration>", "each { into duration }"),
        ("record<a: string, b: int>", 'update "b" { into int }'),
        ("table<a: duration>", 'each { update "a" { into duration } }'),
    ],
)
def test_converts_where_json_differs(kind: str, conversion: str) -> None:
    assert f'--x=($params."x" | if $in != null {{ {conversion} }})' in call_of(created(param("x", kind)))


@pytest.mark.parametrize("kind", ["string", "any", "number", "bool", "list<string>", "record", "oneof<int, duration>"])
def test_converts_nothing_else(kind: str) -> None:
    assert '--x=$params."x"' in call_of(created(param("x", kind)))


@pytest.mark.parametrize("name", ['x"; ls', "x y", "", "-x", "x)", "$x", "x\n", "é", "(ls)"])
def test_names_that_are_not_plain_never_become_source(name: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        entry_source(created(param(name, "string")))
    with pytest.raises(ValueError, match="not the name"):
        entry_source(created(name=f"servers.{name}"))
    with pytest.raises(ValueError, match="not the name"):
        entry_source(created(command=name))


def test_values_never_become_source() -> None:
    marker = "MARKER"
    operation = created(param("x", "string", default=marker, description=marker))
    assert marker not in entry_source(operation)
