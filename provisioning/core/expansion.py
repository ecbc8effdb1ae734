"""`for_each`: one task written once, and made for each item of a list or each key of a table."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from provisioning.core.locate import Finding, shown
from provisioning.core.references import (
    UNKNOWN,
    BadReference,
    LookUp,
    Reference,
    literal,
    named,
    parts,
    substituted,
    value_at,
)
from provisioning.core.tokens import Path
from provisioning.core.workflow import Task

LEVELS = 3
"""So deep `for_each` may be in the values of another: `web.eu.rack-1.2`."""
MOST = 10_000
"""Tasks that one `for_each` may make."""

_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")


class Each(NamedTuple):
    """One of those that a task is made for."""

    key: str
    """What its id has behind that of the task: `1`, `host-a`, or `eu.1` where they are nested."""
    value: Any
    parent: Each | None = None
    """That of the level around, where they are nested."""
    previous: str | None = None
    """The key of the one before."""

    def look_up(self, reference: Reference) -> Any:
        """The value of a reference that begins with `each`."""
        each, words = self, reference[1:]
        while words[:1] == ("parent",) and each.parent is not None:
            each, words = each.parent, words[1:]
        if words == ("key",):
            return each.key
        if words[:1] == ("value",):
            return value_at(each.value, words[1:], reference)
        if words == ("previous",):
            raise BadReference(f"{named(reference)} is a key for depends_on and after", "leave it out here")
        raise BadReference(f"{named(reference)} is nothing of for_each", "write ${each.key} or ${each.value}")


def instances(items: object, path: Path, findings: list[Finding]) -> list[Each]:
    """Those that a `for_each` is for; a value that has `for_each` itself stands for all of its own."""
    found: list[Each] = []
    for each in _level(items, None, path, findings, 1):
        if len(found) >= MOST:
            message = f"it makes more than {MOST} tasks"
            findings.append(Finding("too-large", message, "split it into several tasks", path))
            break
        found.append(each._replace(previous=found[-1].key if found else None))
    return found


def _level(items: object, parent: Each | None, path: Path, findings: list[Finding], level: int) -> Iterator[Each]:
    if not isinstance(items, dict | list):
        findings.append(Finding("wrong-type", f"must be a list or a table, not {shown(items)}", "write [1, 2]", path))
        return
    if level > LEVELS:
        message = f"more than {LEVELS} for_each are inside each other"
        findings.append(Finding("too-deep", message, "make it flatter", path))
        return
    before = f"{parent.key}." if parent else ""
    pairs = enumerate(items, 1) if isinstance(items, list) else items.items()
    for key, value in pairs:
        at = (*path, key - 1 if isinstance(key, int) else key)
        if not _KEY.match(str(key)):
            hint = "lower-case letters, digits, '_' and '-', starting with a letter or digit, at most 64"
            findings.append(Finding("bad-value", f"{shown(key)} cannot be in the id of a task", hint, at))
            continue
        each = Each(f"{before}{key}", value, parent)
        if isinstance(value, dict) and "for_each" in value:
            yield from _level(value["for_each"], each, (*at, "for_each"), findings, level + 1)
        else:
            yield each


def dependencies(names: tuple[str, ...], each: Each | None, look_up: LookUp) -> tuple[str, ...]:
    """The names of other tasks with the keys of `each` in them; without those of the one before, if there is none."""
    if each is None or not any("${" in name for name in names):
        return names
    found: list[str] = []
    for name in names:
        if "${each.previous}" in name and each.previous is None:
            continue
        placed = name.replace("${each.previous}", each.previous or "")
        found.append(_name(placed, look_up) if "${" in placed else placed)
    return tuple(dict.fromkeys(found))


def _name(template: str, look_up: LookUp) -> str:
    found = [(part, look_up(part) if isinstance(part, tuple) else part) for part in parts(template)]
    if any(not isinstance(value, str | int) or isinstance(value, bool) for _, value in found):
        raise BadReference(f"{shown(template)} is no name of a task", "write web.${each.key}")
    return "".join(str(value) for _, value in found)


def without(task: Task, names: set[str]) -> Task:
    """The task beside names that stand for no task: it waits for none of them, and their results are an empty list."""
    if any(_names_all(tuple(text.split(".")), names) for text in task.references):
        with contextlib.suppress(BadReference):  # a list inside a text: refused with what else cannot be referred to
            params = substituted(task.params, lambda reference: [] if _names_all(reference, names) else UNKNOWN)
            left = tuple(text for text in task.references if not _names_all(tuple(text.split(".")), names))
            task = msgspec.structs.replace(task, params=params if left else literal(params), references=left)
    if names.isdisjoint((*task.depends_on, *task.after)):
        return task
    depends_on, after = (tuple(n for n in listed if n not in names) for listed in (task.depends_on, task.after))
    return msgspec.structs.replace(task, depends_on=depends_on, after=after)


def _names_all(reference: Reference, names: set[str]) -> bool:
    """Whether it is of all tasks behind one of the names: `tasks.web.*.result`."""
    return reference[0] == "tasks" and "*" in reference and ".".join(reference[1 : reference.index("*")]) in names
