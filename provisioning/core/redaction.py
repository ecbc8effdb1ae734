"""Takes secrets out of whatever is written down: by value, in base64, and across the borders of chunks."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

MIN_SECRET_CHARS = 4
"""A shorter secret cannot be told from other text: it is refused."""
_MIN_LINE = 12
"""Lines of a secret of several lines are taken out one by one, from this length on."""
_MIN_CODED = 8
"""Shorter stretches of base64 are no sign of a secret."""


class Redactor:
    """Replaces secrets by their names. Without secrets it changes nothing and holds nothing back."""

    def __init__(self, secrets: Mapping[str, str] | None = None) -> None:
        forms = {(form, pattern, name) for name, value in (secrets or {}).items() for form, pattern in _forms(value)}
        longest_first = sorted(forms, key=lambda each: (-len(each[0]), each))
        self._names = [b"[secret " + name.encode() + b"]" for _, _, name in longest_first]
        self._pattern = re.compile(b"|".join(b"(" + pattern + b")" for _, pattern, _ in longest_first) or b"(?!)")
        self._longest = max((3 * len(form) for form, _, _ in longest_first), default=0)
        """Of what may match: base64 may have a line end of two bytes behind each of its characters."""
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """The next bytes of a stream without secrets; what may be the beginning of one is held back."""
        if not self._names:
            return data
        data = self._held + data
        sure = max(0, len(data) - self._longest + 1)
        """A secret that begins before here is there as a whole."""
        done, at = [], 0
        for match in self._pattern.finditer(data):
            if match.start() >= sure:
                break
            done += [data[at : match.start()], self._named(match)]
            at = match.end()
        done.append(data[at:sure])
        self._held = data[max(at, sure) :]
        return b"".join(done)

    def finish(self) -> bytes:
        """What was held back at the end of the stream."""
        held, self._held = self._held, b""
        return self._replaced(held)

    def text(self, text: str) -> str:
        """The text without secrets."""
        return self._replaced(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def value(self, value: Any) -> Any:
        """A JSON value without secrets in any of its texts and keys."""
        if not self._names:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return value

    def _replaced(self, data: bytes) -> bytes:
        return self._pattern.sub(self._named, data)

    def _named(self, match: re.Match[bytes]) -> bytes:
        return self._names[(match.lastindex or 1) - 1]


def _forms(secret: str) -> Iterator[tuple[bytes, bytes]]:
    """Each way in which a secret may show, and a pattern of it."""
    raw = secret.encode("utf-8", "surrogatepass")
    lines = [line.strip() for line in secret.splitlines() if len(line.strip()) >= _MIN_LINE]
    texts = [secret, *(lines if len(lines) > 1 else ())]
    for text in texts:
        yield (plain := text.encode("utf-8", "surrogatepass")), re.escape(plain)
        for ascii_only in (True, False):
            coded = json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode("utf-8", "surrogatepass")
            yield coded, re.escape(coded)
    for shift in range(3):
        # Of three bytes base64 makes four characters: what stands before and behind the secret decides its edges.
        coded = base64.b64encode(b"\0" * shift + raw)
        first = (0, 2, 3)[shift]
        whole = coded[first : len(coded) // 4 * 4 - (4 if (len(raw) + shift) % 3 else 0)]
        if len(whole) >= _MIN_CODED:
            yield whole, _wrapped(whole)
    yield (hexed := raw.hex().encode()), re.escape(hexed)


def _wrapped(coded: bytes) -> bytes:
    """Base64 in either alphabet, with line ends wherever a program may have put them."""
    either = {ord("+"): b"[+-]", ord("/"): b"[/_]"}
    return rb"(?:\r?\n)?".join(either.get(char, bytes([char])) for char in coded)
