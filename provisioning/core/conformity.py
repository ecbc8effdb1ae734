"""Values against JSON Schemas and signatures: fastjsonschema decides, jsonschema says why."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from provisioning.core.catalogue import Operation, nearest_hint
from provisioning.core.locate import Finding, Limits, problems, settle, shown
from provisioning.core.references import templates as texts_with_marks
from provisioning.core.tokens import Path
from provisioning.errors import Problem

_LIMITS = Limits()
_KINDS = {
    "object": "a table",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}

CREDENTIAL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")

_ANNOTATIONS = frozenset({"title", "description", "$comment"})
_VALUES = frozenset({"enum", "const", "default", "examples"})
"""Keywords whose value is no schema."""
_NAMES = frozenset({"properties", "patternProperties", "$defs"})


@functools.lru_cache(maxsize=256)
def compiled(schema: bytes) -> Callable[[Any], Any]:
    """A function that raises for a value against the schema; what it says is for jsonschema to explain."""
    import fastjsonschema

    rules = _rules_of(msgspec.json.decode(schema))
    made: Callable[[Any], Any] = fastjsonschema.compile(
        rules, use_default=False, use_formats=False, detailed_exceptions=False
    )
    return made


def _rules_of(schema: Any) -> Any:
    """The schema without its annotations, which cost more to compile than its rules."""
    if isinstance(schema, list):
        return [_rules_of(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    rules: dict[str, Any] = {}
    for key, inner in schema.items():
        if key in _NAMES:  # whose keys are no keywords: a param may be called `description`
            rules[key] = {name: _rules_of(each) for name, each in inner.items()}
        elif key not in _ANNOTATIONS:
            rules[key] = inner if key in _VALUES else _rules_of(inner)
    if "const" in rules:
        rules["enum"] = [rules.pop("const")]  # the same rule; the library cannot write the other one tersely
    return rules


def schema_findings(
    schema: dict[str, Any], value: object, path: Path = (), *, secret: Sequence[str] = ()
) -> list[Finding]:
    """Everything that a JSON Schema says against a value; what is in a key named in `secret` is not quoted."""
    from fastjsonschema import JsonSchemaValueException

    try:
        compiled(msgspec.json.encode(schema))(value)
        return []
    except JsonSchemaValueException as refusal:
        said = Finding("bad-value", shown(refusal.message), "", path)
    from jsonschema import Draft202012Validator

    found: dict[Path, Finding] = {}
    for error in Draft202012Validator(schema).iter_errors(value):
        hidden = bool(error.absolute_path) and error.absolute_path[0] in secret
        quoted = "what it has (a secret)" if hidden else shown(error.instance)
        for finding in _explained(error, (*path, *error.absolute_path), quoted):
            if finding.code == "wrong-type" or finding.path not in found:  # one is enough, and a wrong type says most
                found[finding.path] = finding
    return list(found.values()) or [said]


_RULES = {
    "minimum": "must be at least {rule}, and is {quoted}",
    "maximum": "must be at most {rule}, and is {quoted}",
    "minItems": "must have at least {rule} items",
    "maxItems": "must have at most {rule} items",
    "minLength": "must have at least {rule} characters",
    "maxLength": "must have at most {rule} characters",
    "uniqueItems": "names something twice",
    "pattern": "cannot be {quoted}",
    "const": "must be {rule}, and is {quoted}",
    "anyOf": "fits none of the kinds that are allowed: {quoted}",
    "oneOf": "fits none of the kinds that are allowed: {quoted}",
}


def _explained(error: Any, path: Path, quoted: str) -> Iterator[Finding]:
    """One error of jsonschema, in our words."""
    keyword, rule, hint = error.validator, error.validator_value, error.schema.get("description", "")
    if keyword == "additionalProperties":
        known = error.schema.get("properties", {})
        for key in [key for key in error.instance if key not in known]:
            hint = nearest_hint(key[:64], known) or f"known here: {', '.join(known) or 'nothing'}"
            yield Finding("unknown-key", f"unknown key {shown(key)}", hint, (*path, key))
    elif keyword == "required":
        for key in [key for key in rule if key not in error.instance]:
            hint = error.schema.get("properties", {}).get(key, {}).get("description", "")
            yield Finding("missing-key", f"{key!r} is missing", hint, (*path, key))
    elif keyword == "type":
        kinds = [_KINDS.get(kind, kind) for kind in ([rule] if isinstance(rule, str) else rule)]
        yield Finding("wrong-type", f"must be {' or '.join(kinds)}, not {quoted}", hint, path)
    elif keyword == "enum":
        yield Finding("bad-value", f"must be {' or '.join(map(shown, rule))}, not {quoted}", hint, path)
    else:
        message = _RULES.get(keyword, "{quoted} is against the rule {keyword}")
        yield Finding("bad-value", message.format(rule=rule, quoted=quoted, keyword=keyword), hint, path)


def validate_params(
    operation: Operation, params: Mapping[str, Any], *, file: str = "", field: str = "params"
) -> list[Problem]:
    """What an operation's signature says against params that came from anywhere. Their values are taken literally."""
    return problems(param_findings(operation, dict(params), (field,) if field else ()), file=file)


def credential_of(value: Any) -> str | None:
    """The name in `{ credential = "name" }`; None for every other value."""
    name = value.get("credential") if isinstance(value, dict) and len(value) == 1 else None
    return name if isinstance(name, str) and CREDENTIAL_NAME.match(name) else None


def param_findings(
    operation: Operation, params: dict[str, Any], path: Path, *, templates: bool = False
) -> Iterator[Finding]:
    """What an operation's signature says against params. A credential stands for a text that nobody knows yet.

    With `templates` they hold references, whose values are not known: nothing is said against these.
    """
    credentials = {name for name, value in params.items() if credential_of(value) is not None}
    spared = credentials | set(operation.secret)
    yield from _credential_findings(operation, params, credentials, path)
    schema = operation.params_schema()
    schema["required"] = [name for name in schema["required"] if name not in spared or name not in params]
    known = schema["properties"]
    given = {name: value for name, value in params.items() if name not in spared or name not in known}
    value = as_declared(given, schema)
    described = {param.name: param.description for param in operation.params}
    found = settle(value, limits=_LIMITS, path=path) or schema_findings(schema, value, path, secret=operation.secret)
    if templates and found:
        unknown = [(*path, *at) for at, text in texts_with_marks(value) if "${" in text.replace("$${", "")]
        found = [each for each in found if not any(each.path == at[: len(each.path)] for at in unknown)]
    for each in found:
        name = each.path[len(path)] if len(each.path) > len(path) else ""
        hint = each.hint or described.get(str(name), "") or f"see: provisioning operation show {operation.name}"
        yield each._replace(code="bad-params", hint=hint)


def _credential_findings(
    operation: Operation, params: Mapping[str, Any], credentials: set[str], path: Path
) -> Iterator[Finding]:
    """Secrets that are written out, and credentials where no text belongs."""
    for param in operation.params:
        if param.name in credentials and param.schema not in ({}, {"type": "string"}):
            hint = "a credential is a text: give the value itself"
            yield Finding("bad-params", "this param takes no credential", hint, (*path, param.name))
        literal = param.name in params and params[param.name] is not None and param.name not in credentials
        if literal and param.name in operation.secret:
            hint = 'name it, { credential = "name" }, and put the secret into a file of that name'
            yield Finding("literal-secret", "a secret is not written into a manifest", hint, (*path, param.name))


def as_declared(value: Any, schema: Mapping[str, Any]) -> Any:
    """JSON Schema takes 30.0 for an integer, and Nushell does not."""
    if isinstance(value, float) and schema.get("type") == "integer" and value.is_integer():
        return int(value)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [as_declared(item, schema["items"]) for item in value]
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return {key: as_declared(item, known.get(key, {})) for key, item in value.items()}
    return value
