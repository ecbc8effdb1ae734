"""A manifest's text: bytes to a document, strictly, and the line on which each part of it stands."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime, time
from typing import Any, NamedTuple

from provisioning.core.tokens import Path, entries
from provisioning.errors import InvalidManifest, Problem


class Limits(NamedTuple):
    """What a manifest may not exceed."""

    bytes: int = 64 * 1024 * 1024
    depth: int = 32
    """Tables and lists inside each other, the document itself included."""
    tasks: int = 200_000
    values: int = 20_000_000
    """Tables, lists and what is in them, all counted."""


class Finding(NamedTuple):
    """A problem before its line is known."""

    code: str
    message: str
    hint: str = ""
    path: Path = ()
    line: int | None = None
    column: int | None = None


class Locator(NamedTuple):
    """Finds lines in one manifest's text; costs a pass over it, so it is asked only when there are problems."""

    text: str
    form: str

    def lines(self, paths: Collection[Path]) -> dict[Path, int]:
        """The line of each path, or of the nearest part around it that has one."""
        wanted = {path[:end] for path in paths for end in range(1, len(path) + 1)}
        found: dict[Path, int] = {}
        for path, line in entries(self.text, self.form) if wanted else ():
            if path in wanted:
                found.setdefault(path, line)
        around = {path: [found[path[:end]] for end in range(len(path), 0, -1) if path[:end] in found] for path in paths}
        return {path: lines[0] for path, lines in around.items() if lines}


def problems(
    findings: Iterable[Finding], *, file: str, locator: Locator | None = None, names: Mapping[int, str] | None = None
) -> list[Problem]:
    """The findings as problems in the order of the file; `names` are the tasks' ids by index."""
    listed = list(dict.fromkeys(findings))
    lines = locator.lines([each.path for each in listed if each.line is None]) if locator else {}
    placed = [each if each.line else each._replace(line=lines.get(each.path)) for each in listed]
    placed.sort(key=lambda each: each.line or 0)
    return [
        Problem(each.code, each.message, each.hint, file, each.line, field(each.path, names or {}), each.column)
        for each in placed
    ]


def field(path: Path, names: Mapping[int, str]) -> str:
    """A path for people: `tasks.web.params.plan`, or `tasks[3].params.plan` where the task has no usable id."""
    text = ""
    for depth, part in enumerate(path):
        if isinstance(part, int):
            name = names.get(part) if depth == 1 and path[0] == "tasks" else None
            text += f".{name}" if name else f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", part) else shown(part))
    return text


def shown(value: object) -> str:
    """A value as a message may quote it: short, and nothing in it that a terminal obeys."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    text = repr(value[:60] if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:60]}…"


def decode(data: bytes, *, form: str, file: str, limits: Limits) -> tuple[str, dict[str, Any], list[Finding]]:
    """The text, its document (see `settle`) and what was found in it; InvalidManifest where it cannot be read."""
    text, finding = _text(data, limits)
    findings = [finding] if finding else []
    document: Any = None
    odd: list[Finding] = []
    if not findings:
        try:
            findings = _deep_keys(text, limits) if form == "toml" else []
            if not findings:
                document = _toml(text) if form == "toml" else _json(text)
        except RecursionError:
            findings = [_too_deep(limits)]
        except _DuplicateKey:
            findings = _duplicates(text)
        except ValueError as error:
            findings = [_syntax(error, text, form)]
    if not findings:
        if not isinstance(document, dict):
            message = f"must be a table of keys, not {shown(document)}"
            findings = [Finding("wrong-type", message, 'start with {"schema": 1', (), 1)]
        elif not document and form == "toml":
            findings = [_EMPTY]
        else:
            odd = settle(document, limits=limits)
            findings = [each for each in odd if each.code in ("too-deep", "too-many-values")]
    if findings:
        huge = findings[-1].code == "too-many-values"  # to find its line takes longer than to read it
        raise InvalidManifest(problems(findings, file=file, locator=None if huge else Locator(text, form)))
    return text, document, odd


_EMPTY = Finding("empty", "the manifest is empty", "a manifest has at least: schema = 1, a name, and one task")


def _text(data: bytes, limits: Limits) -> tuple[str, Finding | None]:
    hint = "save it as UTF-8 without a byte order mark"
    if len(data) > limits.bytes:
        message = f"the manifest has {len(data)} bytes, and {limits.bytes} are allowed"
        return "", Finding("too-large", message, "split it into several manifests")
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4]:
        return "", Finding("not-utf8", "the manifest starts with a byte order mark or is not UTF-8", hint, (), 1)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return "", Finding("not-utf8", f"byte {error.start} (0x{data[error.start]:02x}) is not UTF-8", hint, (), line)
    return text, None if text.strip() else _EMPTY


class _DuplicateKey(ValueError):
    pass


def _toml(text: str) -> Any:
    import tomllib  # a manifest in JSON does not need it

    return tomllib.loads(text)


def _json(text: str) -> Any:
    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise _DuplicateKey
        return made

    return json.loads(text, object_pairs_hook=table)


def _duplicates(text: str) -> list[Finding]:
    """Every key of a JSON text that its table already has."""
    first: dict[Path, int] = {}
    findings = []
    for path, line in entries(text, "json"):
        if path in first:
            message = f"the key {shown(path[-1])} is already on line {first[path]}"
            findings.append(Finding("duplicate-key", message, "keep one of them", path, line))
        first.setdefault(path, line)
    return findings


def _syntax(error: ValueError, text: str, form: str) -> Finding:
    """What tomllib or json says, with its line."""
    place: tuple[int | None, int]
    if isinstance(error, json.JSONDecodeError):
        place, message = (error.lineno, error.colno), error.msg
    else:
        at = re.search(r" ?\(at (?:line (\d+), column (\d+)|end of document)\)", str(error))
        place = (int(at[1]), int(at[2])) if at and at[1] else (text.count("\n") + 1 if at else None, 0)
        message = str(error)[: at.start()] if at else "a number has too many digits"
    if re.match(r"Cannot (overwrite|declare|mutate|redefine|define)|Duplicate", message):
        return Finding("duplicate-key", message[:200], "keep one of them", (), place[0])
    hint = "correct the syntax there, or just before it"
    if (form == "toml") == text.lstrip().startswith("{"):
        other = "json" if form == "toml" else "toml"
        hint = f"is it {other.upper()}? then its name must end in .{other}"
    column = f", at column {place[1]}" if place[1] else ""
    return Finding(f"not-{form}", f"{message[:200]}{column}", hint, (), place[0], place[1] or None)


def _too_deep(limits: Limits, path: Path = (), line: int | None = None) -> Finding:
    message = f"more than {limits.depth} tables and lists are inside each other"
    return Finding("too-deep", message, "make it flatter", path[:6], line)


def _deep_keys(text: str, limits: Limits) -> list[Finding]:
    """Dotted keys that are too deep: tomllib would take a time that grows with the square of their length."""
    if re.search(rf"(?:\.[^.\n]*){{{limits.depth}}}", text):
        for path, line in entries(text, "toml"):
            if len(path) > limits.depth:
                return [_too_deep(limits, path, line)]
    return []


def settle(value: dict[str, Any], *, limits: Limits, path: Path = ()) -> list[Finding]:
    """Write TOML's instants as text, in place; find what JSON Schema lets pass and no other program would take."""
    findings: list[Finding] = []
    stack: list[tuple[dict[str, Any] | list[Any], Path]] = [(value, path)]
    count = 0
    while stack:
        inside, at = stack.pop()
        if (count := count + len(inside)) > limits.values:
            text = f"more than {limits.values} values are in it"
            return [*findings, Finding("too-many-values", text, "split it into several manifests", at[:2])]
        pairs: Iterable[tuple[Any, Any]] = inside.items() if isinstance(inside, dict) else enumerate(inside)
        for key, item in pairs:
            if said := _unusable(key) or _unusable(item):
                findings.append(Finding(*said, "other programs could not read it", (*at, key)))
            elif isinstance(item, dict | list):
                if len(at) + 2 > limits.depth:
                    findings.append(_too_deep(limits, (*at, key)))
                else:
                    stack.append((item, (*at, key)))
            elif isinstance(item, datetime | date | time):
                inside[key] = item.isoformat().replace("+00:00", "Z")
    return findings


def _unusable(value: object) -> tuple[str, str] | None:
    """Code and text of what other programs would not take; None for what they would."""
    if isinstance(value, str) and not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        return "half-character", "the text has half of a surrogate pair"
    if isinstance(value, float) and not math.isfinite(value):
        return "not-finite", "not a finite number"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "too-large-number", "the number does not fit into 64 bits"
    return None
