"""`${…}` in a manifest: what it names, and its value in its place. References are data: nothing is ever evaluated.

`$${` stands for a literal `${`. A text that still has references is a *template*: what is put into it is escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from provisioning.core.locate import shown
from provisioning.core.tokens import Path

Reference = tuple[str, ...]
"""The words between the braces: `("tasks", "web", "1", "result", "ip")`."""

HEADS = ("each", "infra", "tasks", "workflow")
"""What a reference may begin with in a task's params."""

_MARK = re.compile(r"\$\$\{|\$\{([^{}]*)(\}?)")
_WORD = re.compile(r"(?:[A-Za-z0-9_-]+|\*)\Z")

UNKNOWN = object()
"""What a look-up gives for a reference whose value is known only later."""

LookUp = Callable[[Reference], Any]
"""The value of a reference, or UNKNOWN; BadReference where there can be none."""


class BadReference(ValueError):
    """A reference that is none, or whose value is not there, and what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def named(reference: Reference) -> str:
    """The reference as it is written."""
    return "${" + ".".join(reference) + "}"


def parts(text: str) -> list[str | Reference]:
    """The text cut at its references, escapes undone; BadReference where one cannot be read."""
    found: list[str | Reference] = []
    plain, at = "", 0
    for mark in _MARK.finditer(text):
        plain += text[at : mark.start()]
        at = mark.end()
        if mark[1] is None:
            plain += "${"
            continue
        words = tuple(mark[1].split("."))
        if not mark[2] or not all(map(_WORD.match, words)):
            hint = "write ${tasks.web.result.ip}, ${each.value}, ${infra.zone}; a literal '${' is written '$${'"
            raise BadReference(f"{shown(mark[0])} is no reference", hint)
        found += [plain, words] if plain else [words]
        plain = ""
    plain += text[at:]
    return [*found, plain] if plain or not found else found


def templates(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every text in a value that has a reference or an escape, with its place."""
    if isinstance(value, str):
        if "${" in value:
            yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from templates(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from templates(item, (*path, index))


def references(value: Any) -> list[Reference]:
    """The references in a template, each once, in its order."""
    found = (part for _, text in templates(value) for part in parts(text) if isinstance(part, tuple))
    return list(dict.fromkeys(found))


def escaped(value: Any) -> Any:
    """The template that means this very value."""
    return _each_text(value, lambda text: text.replace("${", "$${"))


def literal(template: Any) -> Any:
    """The value that a template without references means."""
    return _each_text(template, lambda text: text.replace("$${", "${"))


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value) if "${" in value else value
    if isinstance(value, dict):
        return {key: _each_text(item, change) for key, item in value.items()}
    return [_each_text(item, change) for item in value] if isinstance(value, list) else value


def substituted(template: Any, look_up: LookUp) -> Any:
    """The template with every value that is known in its place; what is not stays a reference."""
    return _each_text(template, lambda text: _substituted(text, look_up))


def _substituted(text: str, look_up: LookUp) -> Any:
    found = _values(text, look_up)
    if len(found) == 1:
        return text if found[0][1] is UNKNOWN else escaped(found[0][1])
    known = (UNKNOWN if value is UNKNOWN else escaped(_as_text(part, value)) for part, value in found)
    return "".join(named(part) if said is UNKNOWN else said for (part, _), said in zip(found, known, strict=True))  # type: ignore[arg-type]


def _values(text: str, look_up: LookUp) -> list[tuple[str | Reference, Any]]:
    """The parts of a text, each with its value."""
    return [(part, look_up(part) if isinstance(part, tuple) else part) for part in parts(text)]


def renamed(template: Any, change: Callable[[Reference], Reference]) -> Any:
    """The template with other references in the place of its own."""

    def text_of(text: str) -> str:
        return "".join(named(change(part)) if isinstance(part, tuple) else escaped(part) for part in parts(text))

    return _each_text(template, text_of)


def resolved(template: Any, look_up: LookUp) -> Any:
    """The value that a template means, every reference being known. A text that is one reference has its value's type.

    BadReference where a value is not there, or has no form inside a text.
    """

    def value_of(text: str) -> Any:
        found = _values(text, look_up)
        return found[0][1] if len(found) == 1 else "".join(_as_text(part, value) for part, value in found)

    return _each_text(template, value_of)


def _as_text(part: str | Reference, value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, dict | list):
        kind = "null" if value is None else shown(value)
        hint = "let it be the whole text, or refer to a part of it"
        raise BadReference(f"{named(part) if isinstance(part, tuple) else part} is {kind} inside a text", hint)
    return json.dumps(value)


def value_at(value: Any, words: Reference, reference: Reference) -> Any:
    """What the words lead to inside a value; `*` means each item of a list or of a table."""
    for depth, word in enumerate(words):
        if word == "*" and isinstance(value, dict | list):
            items = value.values() if isinstance(value, dict) else value
            return [value_at(item, words[depth + 1 :], reference) for item in items]
        if isinstance(value, dict) and word in value:
            value = value[word]
        elif isinstance(value, list) and word.isdigit() and int(word) < len(value):
            value = value[int(word)]
        else:
            raise BadReference(f"{named(reference)}: there is no {shown(word)} in it", _offer(value))
    return value


def _offer(value: Any) -> str:
    if isinstance(value, dict):
        return f"known there: {', '.join(map(shown, list(value)[:10])) or 'nothing'}"
    return f"a list of {len(value)} items, numbered from 0" if isinstance(value, list) else f"it is {shown(value)}"


def schema_at(schema: Mapping[str, Any], words: Reference, reference: Reference) -> dict[str, Any]:
    """The schema of what the words lead to in a value of that schema; `{}` where it says nothing."""
    for depth, word in enumerate(words):
        if "anyOf" in schema:
            return _schema_of_any(schema["anyOf"], words[depth:], reference)
        kind, known = schema.get("type"), schema.get("properties")
        if kind is None:
            return {}
        if kind == "array" and (word == "*" or word.isdigit()):
            schema = schema.get("items", {})
        elif kind == "object" and word == "*":
            schema = {}
        elif kind == "object" and (not known or word in known):
            schema = known[word] if known else {}
        else:
            hint = f"known there: {', '.join(known)}" if known else f"what is there is of the type {shown(kind)}"
            raise BadReference(f"{named(reference)}: the result has no {shown(word)} there", hint)
        if word == "*":
            inner = schema_at(schema, words[depth + 1 :], reference)
            return {"type": "array", "items": inner}
    return dict(schema)


def _schema_of_any(kinds: list[dict[str, Any]], words: Reference, reference: Reference) -> dict[str, Any]:
    """Of alternatives, those that have it."""
    found, refused = [], BadReference(f"{named(reference)} is not there")
    for kind in kinds:
        try:
            found.append(schema_at(kind, words, reference))
        except BadReference as error:
            refused = error
    if not found:
        raise refused
    return found[0] if len(found) == 1 else {"anyOf": found}


def clash(source: Mapping[str, Any], target: Mapping[str, Any]) -> bool:
    """Whether no value of the one schema can be one of the other, as far as their types say."""
    given, wanted = _types(source), _types(target)
    return bool(given and wanted and not any(_fits(one, other) for one in given for other in wanted))


def _types(schema: Mapping[str, Any]) -> set[str]:
    """The types that a schema allows; none where it allows any."""
    if "anyOf" in schema:
        inner = [_types(each) for each in schema["anyOf"]]
        return set().union(*inner) if all(inner) else set()
    kind = schema.get("type", [])
    return {kind} if isinstance(kind, str) else set(kind)


def _fits(given: str, wanted: str) -> bool:
    return given == wanted or {given, wanted} == {"integer", "number"}
