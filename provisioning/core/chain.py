"""The audit log as a chain: every record says the hash of the one before it, so none can be changed, added or lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from provisioning.core.identifiers import Digest
from provisioning.core.workflow import Instant
from provisioning.decoding import decoded

GENESIS = "0" * 64
"""What the first record says of the one before it."""
_HASH = b',"hash":"'


class Link(msgspec.Struct, frozen=True):
    """What every record has; what happened is beside it."""

    n: int
    at: Instant
    event: str
    prev: Digest
    hash: Digest


class Head(NamedTuple):
    """The last record: who knows it from outside sees when the end of the log is cut off."""

    n: int = 0
    hash: str = GENESIS


class Break(NamedTuple):
    """Where the chain does not hold."""

    file: str
    line: int
    text: str


def record(head: Head, at: str, event: str, facts: dict[str, Any]) -> tuple[bytes, Head]:
    """The line that follows `head`, and the new head. The hash is of all of the line before it."""
    said = {"n": head.n + 1, "at": at, "event": event, **facts, "prev": head.hash}
    body = json.dumps(said, ensure_ascii=True, separators=(",", ":")).encode()[:-1]
    digest = hashlib.sha256(body).hexdigest()
    return body + _HASH + digest.encode() + b'"}\n', Head(head.n + 1, digest)


def link(line: bytes) -> Link | None:
    """What a line says, where its own hash is right."""
    body, found, rest = line.rpartition(_HASH)
    try:
        said = decoded(line, Link)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    whole = found and rest.rstrip(b"\n") == said.hash.encode() + b'"}' and line.endswith(b"\n")
    return said if whole and hashlib.sha256(body).hexdigest() == said.hash else None


def breaks(parts: Iterable[tuple[str, Iterable[bytes]]]) -> tuple[list[Break], Head, int]:
    """Where the chain of these files, oldest first, does not hold; its head; and the number that it begins with.

    After a break the chain goes on from the next record that is whole, so that each break is told once.
    """
    found: list[Break] = []
    head: Head | None = None
    first = 0
    for file, lines in parts:
        for number, line in enumerate(lines, 1):
            said = link(line)
            if said is None:
                found.append(Break(file, number, "the record is damaged, or was changed"))
                continue
            if head is None:
                first = said.n
                if said.n == 1 and said.prev != GENESIS:
                    found.append(Break(file, number, "the first record does not begin a chain"))
            elif (said.n, said.prev) != (head.n + 1, head.hash):
                text = f"record {said.n} does not follow record {head.n}"
                if said.n > head.n + 1:
                    text += f": {said.n - head.n - 1} are missing"
                found.append(Break(file, number, text))
            head = Head(said.n, said.hash)
    return found, head or Head(), first
