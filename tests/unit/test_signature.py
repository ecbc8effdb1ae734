"""Nushell signatures become params, schemas and the fields of an operation."""

from __future__ import annotations

from typing import Any

import fastjsonschema
import pytest

from provisioning.errors import Invalid
from provisioning.execution.signature import (
    NUSHELL_TYPE,
    Exported,
    NushellType,
    UnsupportedType,
    default_in_json,
    duration_text,
    json_schema,
    operation,
    parse_type,
)

INT = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}


def fact(kind: str, name: str | None, shape: str | None, **more: Any) -> dict[str, Any]:
    """One line of a signature, as `scope commands` has it."""
    base = {"parameter_name": name, "parameter_type": kind, "syntax_shape": shape, "is_optional": kind != "positional"}
    return base | {"description": "", "completion": None, "parameter_default": None} | more


def exported(*facts: dict[str, Any], output: str = "nothing", **more: Any) -> Exported:
    """A command with these params."""
    signature = [fact("input", None, "nothing"), *facts, fact("output", None, output)]
    fields: dict[str, Any] = {
        "name": "o1 create-server",
        "summary": "Create.",
        "description": "",
        "signatures": {"nothing": signature},
        "metadata": [{}],
        "timeouts": ["nothing"],
        "rest": "",
    }
    return Exported(**fields | more)


def problems_of(found: Exported) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        operation("servers.create", found)
    assert {problem.field for problem in caught.value.problems} == {"servers.create"}
    return [(problem.code, problem.message) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("any", {}),
        ("nothing", {"type": "null"}),
        ("string", {"type": "string"}),
        ("path", {"type": "string"}),
        ("int", INT),
        ("number", {"type": "number"}),
        ("bool", {"type": "boolean"}),
        ("float", {"type": "number", NUSHELL_TYPE: "float"}),
        ("list", {"type": "array", "items": {}}),
        ("list<list<int>>", {"type": "array", "items": {"type": "array", "items": INT}}),
        ("oneof<int, string>", {"anyOf": [INT, {"type": "string"}]}),
        ("record", {"type": "object"}),
        (
            "record<a: int, b: list<string>>",
            {
                "type": "object",
                "required": ["a", "b"],
                "properties": {"a": INT, "b": {"type": "array", "items": {"type": "string"}}},
            },
        ),
        (
            "table<a: oneof<int, nothing>>",
            {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["a"],
                    "properties": {"a": {"anyOf": [INT, {"type": "null"}]}},
                },
            },
        ),
    ],
)
def test_type_to_schema(text: str, schema: dict[str, Any]) -> None:
    assert json_schema(parse_type(text)) == schema


@pytest.mark.parametrize("text", ["closure()", "binary", "range", "cell-path", "list<error>", "record<a: closure()>"])
def test_types_json_cannot_carry(text: str) -> None:
    with pytest.raises(UnsupportedType):
        json_schema(parse_type(text))


@pytest.mark.parametrize("text", ["", "list<int", "list<int>>", "record<a", "<int>", "record<a: int> b"])
def test_unreadable_types(text: str) -> None:
    with pytest.raises(UnsupportedType):
        json_schema(parse_type(text))


def test_field_names_of_params_become_source_and_are_plain() -> None:
    with pytest.raises(UnsupportedType, match="a b"):
        json_schema(parse_type("record<a b: int>"))
    assert json_schema(parse_type("record<a b: int>"), result=True)["required"] == ["a b"]


@pytest.mark.parametrize("text", ["10min", "1hr 30min", "-5sec", "1.5hr", "0sec"])
def test_durations_in_manifests(text: str) -> None:
    fastjsonschema.compile(json_schema(parse_type("duration")))(text)


@pytest.mark.parametrize("value", ["10", "10min\n", "ten minutes", "10min; ls", 600, None])
def test_what_is_no_duration(value: Any) -> None:
    with pytest.raises(fastjsonschema.JsonSchemaException):
        fastjsonschema.compile(json_schema(parse_type("duration")))(value)


@pytest.mark.parametrize(
    ("value", "fits"), [("4GB", True), ("1.5 GiB", True), (4096, True), ("4", False), (1.5, False)]
)
def test_filesizes_in_manifests(value: Any, fits: bool) -> None:
    validate = fastjsonschema.compile(json_schema(parse_type("filesize")))
    if fits:
        validate(value)
    else:
        with pytest.raises(fastjsonschema.JsonSchemaException):
            validate(value)


def test_results_have_what_to_json_makes_of_them() -> None:
    assert json_schema(parse_type("duration"), result=True) == INT
    assert json_schema(parse_type("filesize"), result=True) == INT
    assert json_schema(parse_type("datetime"), result=True) == {"type": "string"}


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (600 * 10**9, "10min"),
        (90 * 10**9, "90sec"),
        (1, "1ns"),
        (0, "0sec"),
        (-(10**9), "-1sec"),
        (7 * 86400 * 10**9, "1wk"),
    ],
)
def test_duration_text(nanoseconds: int, text: str) -> None:
    assert duration_text(nanoseconds) == text


def test_defaults_hold_durations_as_manifests_write_them() -> None:
    assert default_in_json(10**9, NushellType("int")) == 10**9
    assert default_in_json([10**9], parse_type("list<duration>")) == ["1sec"]
    assert default_in_json({"a": 10**9, "b": 5}, parse_type("record<a: duration>")) == {"a": "1sec", "b": 5}
    assert default_in_json([{"a": 10**9}], parse_type("table<a: duration>")) == [{"a": "1sec"}]
    assert default_in_json(None, parse_type("duration")) is None


def test_params_in_the_order_of_the_signature() -> None:
    found = operation(
        "servers.create",
        exported(
            fact("positional", "name", "string", description="Its name"),
            fact("positional", "size", "int", is_optional=True, parameter_default=3),
            fact("rest", "", "string"),
            fact("named", "provider", "string", completion=["local", "aws"], parameter_default="local"),
            fact("named", "image", "string", completion="images"),
            fact("named", "initial-delay", "duration", parameter_default=10 * 10**9),
            fact("switch", "dry-run", None),
            output="record<name: string>",
            rest="others",
        ),
    )
    assert [(p.name, p.positional, p.required, p.rest, p.default) for p in found.params] == [
        ("name", True, True, False, None),
        ("size", True, False, False, 3),
        ("others", True, False, True, []),
        ("provider", False, False, False, "local"),
        ("image", False, False, False, None),
        ("initial-delay", False, False, False, "10sec"),
        ("dry-run", False, False, False, False),
    ]
    schemas = {param.name: param.schema for param in found.params}
    assert schemas["others"] == {"type": "array", "items": {"type": "string"}}
    assert schemas["provider"] == {"type": "string", "enum": ["local", "aws"]}
    assert schemas["image"] == {"type": "string"}
    assert schemas["dry-run"] == {"type": "boolean"}
    assert found.params[0].description == "Its name"
    assert found.command == "create-server"
    assert found.params_schema()["required"] == ["name"]


def test_result_of_nothing() -> None:
    assert operation("servers.create", exported(output="nothing")).result_schema is None
    assert operation("servers.create", exported(output="any")).result_schema == {}


def test_metadata_becomes_fields() -> None:
    metadata = {
        "idempotent": True,
        "timeout": 600 * 10**9,
        "retries": 3,
        "target": {"exclusive": ["server/{name}"], "shared": ["infra"]},
        "undo": "servers.delete",
        "probe": "servers.show",
        "check": "dry-run",
        "secret": ["token"],
        "plans": True,
        "group": "aws",
        "executor": "slurm",
    }
    facts = (fact("positional", "name", "string"), fact("named", "token", "string"), fact("switch", "dry-run", None))
    found = operation("servers.create", exported(*facts, metadata=[metadata], timeouts=["duration"]))
    assert (found.idempotent, found.timeout_seconds, found.retries) == (True, 600.0, 3)
    assert (found.exclusive, found.shared) == (("server/{name}",), ("infra",))
    assert (found.undo, found.probe, found.check) == ("servers.delete", "servers.show", "dry-run")
    assert (found.secret, found.plans, found.group, found.executor) == (("token",), True, "aws", "slurm")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"idempotant": True}, "no key 'idempotant'"),
        ({"idempotent": "yes"}, "idempotent"),
        ({"timeout": 600}, "timeout in @operation is a int"),
        ({"retries": -1}, "retries"),
        ({"target": {"exclusiv": []}}, "exclusiv"),
        ({"target": {"exclusive": ["server/{nme}"]}}, "no param 'nme'"),
        ({"secret": ["token"]}, "no param 'token'"),
        ({"check": "name"}, "must name a switch"),
        ({"undo": "servers/delete"}, "undo"),
        ({"executor": "pbs"}, "executor"),
        ([{}, {}], "one record"),
        ("yes", "one record"),
    ],
)
def test_wrong_metadata(metadata: Any, words: str) -> None:
    found = exported(fact("positional", "name", "string"), metadata=[metadata], timeouts=["int"])
    [(code, message)] = problems_of(found)
    assert code == "operation-key"
    assert words in message


def test_attribute_without_a_record_is_an_operation_with_defaults() -> None:
    assert operation("servers.create", exported(metadata=[None])).idempotent is False


def test_every_problem_is_told_at_once() -> None:
    found = exported(
        fact("named", "then", "closure()"),
        fact("named", "size; ls", "int"),
        output="range",
        metadata=[{"nope": 1}],
        name="o1 Create",
    )
    assert [code for code, _ in problems_of(found)] == [
        "operation-command",
        "operation-type",
        "operation-type",
        "operation-type",
        "operation-key",
    ]


def test_a_command_that_wants_input() -> None:
    assert problems_of(exported(signatures={"string": []})) == [
        ("operation-command", "the command wants string from the pipeline")
    ]


def test_the_module_itself_is_no_operation() -> None:
    assert problems_of(exported(name="o1"))[0][0] == "operation-command"
