"""What proves that a dropped file is whole: its own last line, or a listing beside it."""

from __future__ import annotations

import hashlib
import re

DIGEST_BYTES = 4096
"""At most so many bytes of a `.sha256` or `.sig` are read."""
_SEAL = re.compile(rb"# end sha256=([0-9a-f]{64})\r?\n?\Z")
_SHA256SUM = re.compile(r"\\?([0-9a-f]{64}) [ *](.+)")


def seal(data: bytes) -> bytes:
    """The bytes with a last line that proves them whole; one that is there is replaced."""
    data = unsealed(data)
    data += b"" if data.endswith(b"\n") or not data else b"\n"
    return data + f"# end sha256={hashlib.sha256(data).hexdigest()}\n".encode()


def unsealed(data: bytes) -> bytes:
    """The bytes without their seal."""
    found = _SEAL.search(data, max(0, len(data) - 96))
    return data[: found.start()] if found else data


def is_sealed(data: bytes) -> bool | None:
    """Whether the last line proves the bytes whole; None where there is no such line."""
    found = _SEAL.search(data, max(0, len(data) - 96))
    if found is None or (found.start() and data[found.start() - 1 : found.start()] != b"\n"):
        return None
    return hashlib.sha256(data[: found.start()]).hexdigest().encode() == found[1]


def is_listed(data: bytes, name: str, listing: bytes) -> bool:
    """Whether a listing, as sha256sum writes it, has the bytes under this name, in whatever folder."""
    digest = hashlib.sha256(data).hexdigest()
    lines = map(_SHA256SUM.fullmatch, listing.decode("utf-8", "replace").splitlines())
    return any(line and line[1] == digest and line[2].rpartition("/")[2] == name for line in lines)
