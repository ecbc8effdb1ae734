"""References: what a text means, what is put in its place, and what a schema says of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.core.references import (
    UNKNOWN,
    BadReference,
    Reference,
    clash,
    escaped,
    literal,
    parts,
    references,
    renamed,
    resolved,
    schema_at,
    substituted,
    value_at,
)

VALUES: dict[str, Any] = {
    "text": "a ${b} $$",
    "whole": 3,
    "half": 0.5,
    "yes": True,
    "none": None,
    "list": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
    "table": {"zone": "fi", "ports": {"http": 80}},
}


def look_up(reference: Reference) -> Any:
    if reference[0] == "later":
        return UNKNOWN
    return value_at(VALUES, reference, reference)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [""]),
        ("plain $ { } $x", ["plain $ { } $x"]),
        ("${a.b}", [("a", "b")]),
        ("x ${a}${b.1.*} y", ["x ", ("a",), ("b", "1", "*"), " y"]),
        ("$${a} ${b}", ["${a} ", ("b",)]),
        ("$$${a}", ["$${a}"]),
    ],
)
def test_parts(text: str, found: list[Any]) -> None:
    assert parts(text) == found


@pytest.mark.parametrize(
    "text", ["${", "${a", "${}", "${a b}", "${a..b}", "${a.}", "${a{b}}", "${$(x)}", "${ä}", "${a\n}"]
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(BadReference, match="is no reference"):
        parts(text)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("${whole}", 3),
        ("${text}", "a ${b} $$"),
        ("${list}", VALUES["list"]),
        ("${none}", None),
        ("${list.1.ip}", "10.0.0.2"),
        ("${list.*.ip}", ["10.0.0.1", "10.0.0.2"]),
        ("${table.ports.*}", [80]),
        ("n=${whole} h=${half} y=${yes} t=${text}", "n=3 h=0.5 y=true t=a ${b} $$"),
        ("$${whole}=${whole}", "${whole}=3"),
        ({"a": ["${whole}", {"b": "${yes}"}], "c": 1}, {"a": [3, {"b": True}], "c": 1}),
    ],
)
def test_a_reference_gives_its_value_with_its_type(template: Any, value: Any) -> None:
    found = resolved(template, look_up)
    assert found == value
    assert type(found) is type(value)
    assert literal(substituted(template, look_up)) == value


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("a ${list}", "a list inside a text"),
        ("a ${none}", "null inside a text"),
        ("${table.zone.x}", "there is no 'x' in it"),
        ("${list.2}", "there is no '2' in it"),
        ("${list.ip}", "there is no 'ip' in it"),
        ("${nothing}", "there is no 'nothing' in it"),
    ],
)
def test_a_value_that_is_not_there(template: str, says: str) -> None:
    with pytest.raises(BadReference) as refused:
        resolved(template, look_up)
    assert says in refused.value.message
    assert refused.value.hint


def test_what_is_known_later_stays_a_reference_and_what_is_put_beside_it_is_no_reference() -> None:
    template = substituted({"a": "${text} ${later.x}", "b": "${text}", "c": "$${x}"}, look_up)
    assert references(template) == [("later", "x")]
    assert resolved(template, lambda _: "!") == {"a": "a ${b} $$ !", "b": "a ${b} $$", "c": "${x}"}


def test_references_can_be_renamed() -> None:
    template = renamed({"a": "$${x} ${tasks.a.result} ${b}"}, lambda words: ("new", *words))
    assert template == {"a": "$${x} ${new.tasks.a.result} ${new.b}"}


TEXTS = st.text(alphabet="${}ab.*\n", max_size=12)


@given(st.recursive(TEXTS | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)))
def test_an_escaped_value_means_itself(value: Any) -> None:
    assert references(escaped(value)) == []
    assert literal(escaped(value)) == value
    assert resolved(escaped(value), look_up) == value
    assert resolved("${value}", lambda _: value) == value, "what a reference gives is never looked at again"


SERVER = {
    "type": "object",
    "required": ["ip"],
    "properties": {"ip": {"type": "string"}, "ports": {"type": "array", "items": {"type": "integer"}}},
}


@pytest.mark.parametrize(
    ("schema", "words", "found"),
    [
        (SERVER, "ip", {"type": "string"}),
        (SERVER, "ports.0", {"type": "integer"}),
        (SERVER, "ports.*", {"type": "array", "items": {"type": "integer"}}),
        ({"type": "array", "items": SERVER}, "*.ip", {"type": "array", "items": {"type": "string"}}),
        ({}, "what.ever", {}),
        ({"type": "object"}, "any", {}),
        ({"anyOf": [SERVER, {"type": "null"}]}, "ip", {"type": "string"}),
    ],
)
def test_what_a_schema_says_of_a_part(schema: dict[str, Any], words: str, found: dict[str, Any]) -> None:
    assert schema_at(schema, tuple(words.split(".")), ("r",)) == found


@pytest.mark.parametrize(
    ("schema", "words"),
    [(SERVER, "pi"), (SERVER, "ip.x"), (SERVER, "ports.first"), ({"type": "null"}, "x"), ({"anyOf": [SERVER]}, "x")],
)
def test_what_a_result_cannot_have(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(BadReference):
        schema_at(schema, tuple(words.split(".")), ("r",))


def test_types_that_cannot_meet() -> None:
    text, whole, number = ({"type": kind} for kind in ("string", "integer", "number"))
    assert clash(text, whole)
    assert clash({"anyOf": [text, whole]}, {"type": "array"})
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (text, text),
        (whole, number),
        ({}, whole),
        (text, {}),
        ({"anyOf": [text, whole]}, whole),
    ]
    assert not any(clash(one, other) for one, other in pairs)
