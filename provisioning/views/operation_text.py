"""An operation as people read it: params, result and policies."""

from __future__ import annotations

import json
from typing import Any

from provisioning.core.catalogue import Operation, Param
from provisioning.views.table import table
from provisioning.views.text import safe, safe_block


def kind(schema: dict[str, Any] | None) -> str:
    """A JSON Schema in a few words."""
    if schema is None:
        return "nothing"
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(kind(each) for each in schema["anyOf"])
    found = schema.get("type", "any")
    if found == "array":
        return f"list of {kind(schema.get('items', {}))}"
    if found == "object" and schema.get("properties"):
        return "record of " + ", ".join(schema["properties"])
    return str(found)


def _param(param: Param) -> list[str]:
    name = param.name if param.positional else f"--{param.name}"
    how = "required" if param.required else f"default {json.dumps(param.default)}"
    return ["  " + name + ("…" if param.rest else ""), kind(param.schema), how, param.description]


def operation_text(operation: Operation, *, width: int | None = None) -> str:
    """Everything a manifest's author needs."""
    lines = [f"{operation.name}: {safe(operation.summary)}"]
    if operation.description:
        lines += ["", safe_block(operation.description)]
    lines += ["", "params:" if operation.params else "params: none"]
    lines += [table([_param(param) for param in operation.params], width=width)] if operation.params else []
    facts = [
        ["result", kind(operation.result_schema)],
        ["idempotent", "yes" if operation.idempotent else "no: after an interruption a person decides"],
        ["timeout", f"{operation.timeout_seconds:g} s" if operation.timeout_seconds else ""],
        ["retries", str(operation.retries) if operation.retries else ""],
        ["targets", ", ".join([*operation.exclusive, *(f"{each} (shared)" for each in operation.shared)])],
        ["undo", operation.undo or ""],
        ["probe", operation.probe or ""],
        ["check", f"--check, as {operation.check}" if operation.check else ""],
        ["executor", operation.executor or ""],
        ["secret", ", ".join(operation.secret)],
    ]
    lines += ["", table([fact for fact in facts if fact[1]], width=width)]
    return "\n".join(lines)
