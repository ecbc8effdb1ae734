"""What Nushell says of an exported command, turned into an Operation: types to JSON Schema, `@operation` to fields.

Pure: takes what `scope commands` printed, starts nothing. Whatever an entry writes into Nushell source comes
through here, so every name is held to a strict pattern; values never come this way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from provisioning.core.catalogue import Operation, Param, nearest_hint
from provisioning.core.identifiers import Executing, OperationName
from provisioning.decoding import converted
from provisioning.errors import Invalid, Problem

OPERATION_FILE = re.compile(r"([a-z][a-z0-9-]{0,40})/([a-z][a-z0-9-]{0,40})\.nu\Z")
"""Where an operation may be: `<domain>/<verb>.nu`."""
COMMAND_NAME = re.compile(r"[a-z][a-z0-9-]{0,80}\Z")
PARAM_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,80}\Z")
NOT_DOMAINS = frozenset({"infra", "lib", "providers", "tests"})
"""Folders of nulib that hold no operations."""

NUSHELL_TYPE = "x-nushell"
"""Schema keyword that names the Nushell type where the JSON value has to be converted to it."""

_INT: dict[str, Any] = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
_TEXT = frozenset({"string", "path", "directory", "glob"})
_SPAN = r"-?[0-9]+(\.[0-9]+)?(ns|us|ms|sec|min|hr|day|wk)"
CONVERTED: dict[str, dict[str, Any]] = {
    "duration": {"type": "string", "pattern": rf"^{_SPAN}( {_SPAN})*$", "examples": ["10min", "1hr 30min"]},
    "filesize": {
        "type": ["integer", "string"],
        "pattern": r"^[0-9]+(\.[0-9]+)? ?([kKMGTPE]i?)?B$",
        "examples": ["4GB", 4096],
    },
    "datetime": {"type": "string", "format": "date-time", "examples": ["2026-12-01T02:00:00Z"]},
    "float": {"type": "number"},
}
"""Params of these types: what a manifest writes, and what the entry converts with `into`."""
_IN_JSON: dict[str, dict[str, Any]] = {
    "duration": _INT,
    "filesize": _INT,
    "datetime": {"type": "string"},
    "float": {"type": "number"},
}
"""What `to json` makes of these types in a result; a duration is nanoseconds."""
_UNITS = {"wk": 604_800 * 10**9, "day": 86_400 * 10**9, "hr": 3_600 * 10**9, "min": 60 * 10**9, "sec": 10**9} | {
    "ms": 10**6,
    "us": 10**3,
    "ns": 1,
}


def _bad(name: str, code: str, message: str, hint: str = "") -> Problem:
    return Problem(code, message, hint, field=name)


class UnsupportedType(ValueError):
    """A Nushell type whose values JSON cannot carry."""


class Exported(msgspec.Struct, frozen=True):
    """One command that a nulib file exports, as the reader script prints it."""

    name: str
    summary: str
    description: str
    signatures: dict[str, list[dict[str, Any]]]
    """By input type; each a list of input, parameters and output."""
    metadata: list[Any]
    """The value of each `@operation` that it carries."""
    timeouts: list[str]
    """The Nushell type of `timeout` in each of them: JSON shows a duration as a number."""
    rest: str
    """Name of the rest parameter, which `scope commands` leaves out."""

    @property
    def command(self) -> str:
        """Its name without the module's."""
        return self.name.partition(" ")[2]


@dataclass(frozen=True, slots=True)
class NushellType:
    """A parsed type: `record<a: int, b: list<string>>` has fields, `list<int>` and `oneof<…>` have members."""

    name: str
    members: tuple[NushellType, ...] = ()
    fields: tuple[tuple[str, NushellType], ...] = ()


class _TypeText:
    """The text of a type, read from the left."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def type(self) -> NushellType:
        name = self._until("<>,()")
        if self._take("("):  # closure(): what is between the brackets does not matter
            self._until(")")
            self._take(")")
        if not self._take("<"):
            return NushellType(name)
        members: list[NushellType] = []
        fields: list[tuple[str, NushellType]] = []
        while not self._take(">"):
            if self.at >= len(self.text):
                raise UnsupportedType(self.text)
            if name in ("record", "table"):
                field = self._until(":")
                self.at += 1
                fields.append((field, self.type()))
            else:
                members.append(self.type())
            self._take(",")
        return NushellType(name, tuple(members), tuple(fields))

    def _until(self, stops: str) -> str:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in stops:
            self.at += 1
        return self.text[start : self.at].strip()

    def _take(self, character: str) -> bool:
        if self.text[self.at : self.at + 1] != character:
            return False
        self.at += 1
        return True


def parse_type(text: str) -> NushellType:
    """The type that Nushell wrote as `text`; UnsupportedType if it cannot be read."""
    reader = _TypeText(text)
    parsed = reader.type()
    if reader.at != len(text) or not parsed.name:
        raise UnsupportedType(text)
    return parsed


def json_schema(kind: NushellType, *, result: bool = False) -> dict[str, Any]:
    """The JSON Schema of a param's values, or of a result's; UnsupportedType for what JSON cannot carry."""
    match kind.name:
        case "any":
            return {}
        case "nothing":
            return {"type": "null"}
        case "bool":
            return {"type": "boolean"}
        case "int":
            return dict(_INT)
        case "number":
            return {"type": "number"}
        case "list":
            return {"type": "array", "items": json_schema(kind.members[0], result=result) if kind.members else {}}
        case "table":
            return {"type": "array", "items": _record_schema(kind, result=result)}
        case "record":
            return _record_schema(kind, result=result)
        case "oneof":
            return {"anyOf": [json_schema(member, result=result) for member in kind.members]}
        case name if name in _TEXT:
            return {"type": "string"}
        case name if name in CONVERTED:
            return dict(_IN_JSON[name]) if result else CONVERTED[name] | {NUSHELL_TYPE: name}
        case name:
            raise UnsupportedType(name)


def _record_schema(kind: NushellType, *, result: bool) -> dict[str, Any]:
    """An object with at least the declared fields: a record with more is a subtype, as in Nushell."""
    if not kind.fields:
        return {"type": "object"}
    for name, _ in kind.fields:
        if not result and not PARAM_NAME.match(name):
            raise UnsupportedType(f"a record with the field {name!r}")
    return {
        "type": "object",
        "required": [name for name, _ in kind.fields],
        "properties": {name: json_schema(field, result=result) for name, field in kind.fields},
    }


def duration_text(nanoseconds: int) -> str:
    """A duration as Nushell writes and reads it, in the largest unit that divides it: `10min`."""
    for unit, size in _UNITS.items():
        if nanoseconds and nanoseconds % size == 0:
            return f"{nanoseconds // size}{unit}"
    return "0sec"


def default_in_json(value: Any, kind: NushellType) -> Any:
    """A default as a manifest would write it: `scope commands` shows durations as nanoseconds."""
    if kind.name == "duration" and isinstance(value, int):
        return duration_text(value)
    if kind.name == "list" and kind.members and isinstance(value, list):
        return [default_in_json(item, kind.members[0]) for item in value]
    if kind.name == "table" and isinstance(value, list):
        return [default_in_json(item, NushellType("record", fields=kind.fields)) for item in value]
    if kind.name == "record" and isinstance(value, dict):
        kinds = dict(kind.fields)
        return {key: default_in_json(item, kinds.get(key, NushellType("any"))) for key, item in value.items()}
    return value


class _Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    exclusive: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


METADATA: dict[str, Any] = {
    "idempotent": bool,
    "timeout": Annotated[int, msgspec.Meta(gt=0)],
    "retries": Annotated[int, msgspec.Meta(ge=0)],
    "target": _Target,
    "undo": OperationName,
    "probe": OperationName,
    "check": str,
    "secret": tuple[str, ...],
    "plans": bool,
    "group": str,
    "executor": Executing,
}
"""The keys of `@operation`, each with the type of its value."""


def operation(name: str, exported: Exported) -> Operation:
    """The operation that the command declares; Invalid lists everything wrong with the declaration.

    The problems name no file: the caller knows it.
    """
    problems: list[Problem] = []
    if not COMMAND_NAME.match(exported.command):
        message = f"the command is called {exported.command or 'main'!r}"
        problems.append(_bad(name, "operation-command", message, "name it like create-server, in lower case"))
    signature = exported.signatures.get("nothing") or exported.signatures.get("any")
    if signature is None:
        message = f"the command wants {' or '.join(exported.signatures)} from the pipeline"
        problems.append(_bad(name, "operation-command", message, "declare `]: nothing -> <type of the result>`"))
        raise Invalid(problems)
    params = _params(name, exported, signature, problems)
    result_schema = _result_schema(name, signature, problems)
    fields = _metadata(name, exported, {param.name: param for param in params}, problems)
    if problems:
        raise Invalid(problems)
    return Operation(
        name=name,
        command=exported.command,
        summary=exported.summary,
        description=exported.description,
        params=params,
        result_schema=result_schema,
        **fields,
    )


def _params(
    name: str, exported: Exported, signature: list[dict[str, Any]], problems: list[Problem]
) -> tuple[Param, ...]:
    """Positional params in their order, then the rest, then flags and switches: as the signature lists them."""
    params = []
    for facts in signature:
        if facts["parameter_type"] in ("input", "output"):
            continue
        try:
            param = _param(facts, exported.rest)
        except UnsupportedType as error:
            text = f"a manifest cannot carry the type of {facts['parameter_name']}: {error}"
            problems.append(_bad(name, "operation-type", text, "take a string, a number, a list or a record"))
            continue
        if PARAM_NAME.match(param.name):
            params.append(param)
        else:
            problems.append(_bad(name, "operation-type", f"a param is called {param.name!r}", "use a plain word"))
    return tuple(params)


def _param(facts: Mapping[str, Any], rest_name: str) -> Param:
    kind, text = facts["parameter_type"], facts["syntax_shape"]
    nushell_type = parse_type("bool" if kind == "switch" else text)
    schema = json_schema(nushell_type)
    if isinstance(facts["completion"], list) and nushell_type.name == "string":
        schema = {"type": "string", "enum": facts["completion"]}
    rest = kind == "rest"
    default = False if kind == "switch" else default_in_json(facts["parameter_default"], nushell_type)
    return Param(
        name=(facts["parameter_name"] or rest_name) if rest else facts["parameter_name"],
        schema={"type": "array", "items": schema} if rest else schema,
        positional=kind in ("positional", "rest"),
        required=kind == "positional" and not facts["is_optional"],
        rest=rest,
        default=[] if rest else default,
        description=facts["description"] or "",
    )


def _result_schema(name: str, signature: list[dict[str, Any]], problems: list[Problem]) -> dict[str, Any] | None:
    shapes = [facts["syntax_shape"] for facts in signature if facts["parameter_type"] == "output"]
    try:
        kind = parse_type(shapes[0] if shapes else "any")
        return None if kind.name == "nothing" else json_schema(kind, result=True)
    except UnsupportedType as error:
        text = f"JSON cannot carry the type of the result: {error}"
        problems.append(_bad(name, "operation-type", text, "return a record, a list, a string or a number"))
        return None


def _metadata(name: str, exported: Exported, params: Mapping[str, Param], problems: list[Problem]) -> dict[str, Any]:
    """The fields of the Operation that `@operation {…}` sets."""
    record = exported.metadata[0] or {}
    if len(exported.metadata) > 1 or not isinstance(record, dict):
        problems.append(_bad(name, "operation-key", "@operation takes one record", "write @operation {…}, once"))
        return {}
    fields: dict[str, Any] = {}
    for key, value in record.items():
        if key not in METADATA:
            hint = nearest_hint(key, METADATA) or f"the keys are {', '.join(METADATA)}"
            problems.append(_bad(name, "operation-key", f"@operation has no key {key!r}", hint))
            continue
        try:
            fields[key] = converted(value, METADATA[key])
        except msgspec.ValidationError as error:
            problems.append(_bad(name, "operation-key", f"{key} in @operation: {error}"))
    if "timeout" in fields:
        fields["timeout_seconds"] = fields.pop("timeout") / 10**9
        if exported.timeouts[0] != "duration":
            text = f"timeout in @operation is a {exported.timeouts[0]}"
            problems.append(_bad(name, "operation-key", text, "write a duration, such as 10min"))
    target = fields.pop("target", _Target())
    fields |= {"exclusive": target.exclusive, "shared": target.shared}
    used = [(f"secret {secret!r}", secret) for secret in fields.get("secret", ())]
    used += [("check", fields["check"])] if "check" in fields else []
    for template in target.exclusive + target.shared:
        used += [(f"target {template!r}", word) for word in re.findall(r"\{([^{}]*)\}", template)]
    for place, word in used:
        if word not in params:
            hint = nearest_hint(word, params)
            problems.append(_bad(name, "operation-key", f"{place} in @operation: no param {word!r}", hint))
    if "check" in fields and fields["check"] in params and params[fields["check"]].schema != {"type": "boolean"}:
        problems.append(_bad(name, "operation-key", "check in @operation must name a switch"))
    return fields
