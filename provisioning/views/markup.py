"""Elements of HTML and SVG, made so that text cannot become markup.

Whatever is no `Html` is escaped, and the type checker knows the one from the other: no template has to be trusted to
escape each of its holes. That is all of a template library that is wanted here, in less than a page.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Iterable

from provisioning.views.text import safe_block

VOID = frozenset({"meta", "br", "hr", "col", "link", "input", "img"})
_HARMLESS = re.compile(r"[A-Za-z0-9 .,:;/()_#*+~-]*\Z")
"""Most texts: nothing in them has to be looked for."""
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*\Z")


class Html(str):
    """Text that is markup already. Only this module and constants make it."""

    __slots__ = ()


def text(value: str) -> Html:
    """A text, escaped; what would turn it around, hide or be obeyed by a terminal is written out, as `\\x1b`."""
    if isinstance(value, Html):
        return value
    return Html(value if _HARMLESS.match(value) else html.escape(safe_block(value), quote=True))


def tag(name: str, /, *children: object, **attributes: str | float | None) -> Html:
    """An element; a child that is None is nothing, a list is its items one behind the other.

    `class_` and `for_` are `class` and `for`, other `_` are `-`. An attribute of None or False is left out, one of True
    has no value.
    """
    if not _NAME.match(name):
        raise ValueError(f"{name!r} is no element")
    said = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{said}>")
    return Html(f"<{name}{said}>{''.join(_rendered(children))}</{name}>")


def join(*children: object) -> Html:
    """Several, one behind the other."""
    return Html("".join(_rendered(children)))


def _rendered(children: Iterable[object]) -> Iterable[str]:
    for child in children:
        if isinstance(child, str):
            yield text(child)
        elif isinstance(child, int | float):
            yield text(f"{child:g}" if isinstance(child, float) else str(child))
        elif isinstance(child, Iterable):
            yield from _rendered(child)
        elif child is not None:
            raise TypeError(f"{type(child).__name__} is no text")  # a record has no one form for people


@functools.lru_cache(maxsize=256)
def _attribute_name(key: str) -> str:
    name = key.rstrip("_").replace("_", "-")
    if not _NAME.match(name) or name.lower().startswith("on") or name == "style":
        raise ValueError(f"{name!r} is no attribute: scripts and styles of single elements are not allowed here")
    return name


def _attribute(key: str, value: str | float) -> str:
    name = _attribute_name(key)
    if isinstance(value, bool):
        return f" {name}"
    return f' {name}="{text(f"{value:g}" if isinstance(value, float) else str(value))}"'
