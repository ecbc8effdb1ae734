"""The schemas of the spool's files say what the program writes: same fields, each described."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from provisioning import resources
from provisioning.core import drop, workflow

KINDS = {
    "submission": workflow.Submission,
    "plan": workflow.Plan,
    "workflow": workflow.WorkflowCheckpoint,
    "task": workflow.TaskCheckpoint,
    "outcome": workflow.OutcomeRecord,
    "request": workflow.Request,
    "origin": drop.Origin,
    "answer": drop.Answer,
    "receipt": drop.Receipt,
    "drop-request": drop.AskedByFile,
}


def fields(node: Any, path: str = "", definitions: dict[str, Any] | None = None) -> Iterator[str]:
    """The path of every property that a schema declares."""
    if not isinstance(node, dict):
        return
    definitions = definitions if definitions is not None else node.get("$defs", {})
    if "$ref" in node:
        yield from fields(definitions[node["$ref"].rpartition("/")[2]], path, definitions)
    for alternative in node.get("anyOf", ()):
        yield from fields(alternative, path, definitions)
    for name, inner in node.get("properties", {}).items():
        yield f"{path}.{name}"
        yield from fields(inner, f"{path}.{name}", definitions)
    yield from fields(node.get("items"), f"{path}[]", definitions)
    yield from fields(node.get("additionalProperties"), f"{path}.*", definitions)


def undescribed(node: Any, path: str = "") -> Iterator[str]:
    """The properties without a description."""
    if not isinstance(node, dict):
        return
    for name, inner in node.get("properties", {}).items():
        if not inner.get("description"):
            yield f"{path}.{name}"
        yield from undescribed(inner, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        yield from undescribed(node.get(keyword), path)
    for inner in node.get("$defs", {}).values():
        yield from undescribed(inner, path)


@pytest.mark.parametrize("name", KINDS)
def test_a_schema_has_the_fields_of_what_is_written(name: str) -> None:
    assert set(fields(resources.schema(name))) == set(fields(msgspec.json.schema(KINDS[name])))


@pytest.mark.parametrize("name", [*KINDS, "manifest"])
def test_a_schema_is_one_and_describes_every_field(name: str) -> None:
    schema = resources.schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert list(undescribed(schema)) == []
