"""Plain tables: aligned columns, no colour, nothing in them that a terminal obeys."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from provisioning.views.text import compact, safe, safe_block


def width_of(text: str) -> int:
    """Columns that the text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """The text in at most that many columns, with an ellipsis where something is left out."""
    if width_of(text) <= width:
        return text
    kept = text[: max(0, width - 1)]
    while kept and width_of(kept) > width - 1:
        kept = kept[:-1]
    return f"{kept}…"


def table(rows: Iterable[Sequence[str]], headers: Sequence[str] = (), *, width: int | None = None) -> str:
    """Aligned columns; where `width` is given, the widest give way until the lines fit, down to 12 columns each."""
    cells = [[safe(cell) for cell in row] for row in rows]
    if headers:
        cells.insert(0, list(headers))
    if not cells:
        return ""
    count = max(len(row) for row in cells)
    widths = [max((width_of(row[i]) for row in cells if i < len(row)), default=0) for i in range(count)]
    while width is not None and sum(widths) + 2 * (count - 1) > width and max(widths) > 12:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in cells:
        parts = [cut(cell, widths[i]) for i, cell in enumerate(row)]
        padded = [part + " " * (widths[i] - width_of(part)) for i, part in enumerate(parts)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def shown_value(value: Any, *, width: int | None = None) -> str:
    """An operation's result for people: text plain, a record as name and value, records as a table, else JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return safe_block(value)
    if isinstance(value, dict) and value:
        return table([[key, compact(item)] for key, item in value.items()], width=width)
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        keys = list(dict.fromkeys(key for item in value for key in item))
        rows = [[compact(item.get(key)) for key in keys] for item in value]
        return table(rows, [safe(key) for key in keys], width=width)
    if isinstance(value, list):
        return "\n".join(compact(item) for item in value)
    return compact(value)
