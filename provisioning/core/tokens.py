"""The tokens of a manifest's text, TOML or JSON, and the line of every key and list item."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator

Path = tuple[str | int, ...]
"""Where in a document: `("tasks", 3, "params", "plan")`."""

_TOKEN = {
    "toml": (
        r'''(?P<string>"""(?:[^"\\]|\\.|"{1,2}(?!"))*+"{3,5}|\'\'\'(?:[^']|'{1,2}(?!'))*+'{3,5}'''
        r"""|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*')|(?P<comment>\#[^\n]*)|(?P<newline>\n)|(?P<mark>[\[\]{}=,.])"""
        r"""|(?P<bare>[^\s\[\]{}=,.#"']+)"""
    ),
    "json": r'(?P<string>"(?:[^"\\]|\\.)*+")|(?P<mark>[\[\]{}:,])|(?P<bare>[^\s\[\]{}:,"]+)',
}
"""Compiled when there is something to locate, which is seldom."""


def entries(text: str, form: str) -> Iterator[tuple[Path, int]]:
    """Every key and every list item of a text that parses, with its line, in the order of the text."""
    scan = _Scan(text, form)
    return _toml_entries(scan) if form == "toml" else _value_entries(scan, ())


class _Scan:
    """The tokens of a text, one at a time: `kind`, `token` and `line` are those of the current one."""

    def __init__(self, text: str, form: str) -> None:
        self._text, self._form = text, form
        self._matches = re.compile(_TOKEN[form], re.DOTALL).finditer(text)
        self._counted, self.line = 0, 1
        self.kind, self.token = "", ""
        self.advance()

    def advance(self) -> None:
        match = next((each for each in self._matches if each.lastgroup != "comment"), None)
        if match is None:
            self.kind, self.token = "end", ""
            return
        self.line += self._text.count("\n", self._counted, match.start())
        self._counted = match.start()
        self.kind, self.token = str(match.lastgroup), match[0]

    def is_mark(self, marks: str) -> bool:
        return self.kind == "mark" and self.token in marks

    def key(self) -> Path:
        """The key that starts here, by its dotted parts; the current token is then the one behind it."""
        parts: list[str | int] = []
        while self.kind in {"string", "bare"}:
            parts.append(self._plain() if self.kind == "string" else self.token)
            self.advance()
            if self._form == "json" or not self.is_mark("."):
                break
            self.advance()
        return tuple(parts)

    def _plain(self) -> str:
        if "\\" not in self.token or self.token[0] == "'":
            return self.token[1:-1]
        try:
            return str(json.loads(self.token) if self._form == "json" else tomllib.loads(f"k={self.token}")["k"])
        except ValueError:  # only in a text that does not parse
            return self.token


def _toml_entries(scan: _Scan) -> Iterator[tuple[Path, int]]:
    table: Path = ()
    counts: dict[Path, int] = {}

    def resolved(parts: Path) -> Path:
        path: Path = ()
        for part in parts:
            path += (part,)
            path += (counts[path],) if path in counts else ()
        return path

    while scan.kind != "end":
        line = scan.line
        if scan.is_mark("["):
            scan.advance()
            many = scan.is_mark("[")
            if many:
                scan.advance()
            parts = scan.key()[:100]
            if many and parts:
                listed = (*resolved(parts[:-1]), parts[-1])
                counts[listed] = counts.get(listed, -1) + 1
            table = resolved(parts)
            yield from ((table[:end], line) for end in range(1, len(table) + 1))
        elif scan.kind in {"string", "bare"}:
            parts = scan.key()[:100]
            for end in range(1, len(parts) + 1):
                yield (*table, *parts[:end]), line
            scan.advance()
            yield from _value_entries(scan, table + parts)
            continue
        scan.advance()


def _value_entries(scan: _Scan, path: Path) -> Iterator[tuple[Path, int]]:
    """The keys and items inside the value that starts here; `open_` holds the lists and tables around it."""
    open_: list[tuple[Path, int | None]] = []
    while True:
        if scan.is_mark("[{"):
            open_.append((path, 0 if scan.token == "[" else None))
            scan.advance()
        else:
            while not (scan.is_mark(",]}") or scan.kind in {"newline", "end"}):
                scan.advance()
        while True:
            while open_ and (scan.kind == "newline" or scan.is_mark(",")):
                scan.advance()
            if not open_ or not scan.is_mark("]}"):
                break
            open_.pop()
            scan.advance()
        if not open_ or scan.kind == "end" or len(open_) > 1000:
            return
        around, index = open_[-1]
        line = scan.line
        parts: Path
        if index is None:
            parts = scan.key()[:100]
            scan.advance()
        else:
            parts = (index,)
            open_[-1] = (around, index + 1)
        for end in range(1, len(parts) + 1):
            yield (*around, *parts[:end]), line
        path = around + parts
