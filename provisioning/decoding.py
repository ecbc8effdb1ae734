"""Typed decoding that threads may share.

msgspec works a type out when it is first decoded, and another thread that decodes it meanwhile meets it half-made: the
process dies of that. So a type is worked out under a lock, once, and only then used.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_working_out = threading.Lock()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def decoded(data: bytes | str, kind: type[T]) -> T:
    """The JSON as a value of that type. MsgspecError, UnicodeDecodeError or RecursionError where it is none."""
    found: T = _decoder(kind).decode(data)
    return found


def converted(value: Any, kind: type[T]) -> T:
    """Plain values as a value of that type. msgspec.ValidationError where they are none."""
    _decoder(kind)
    return msgspec.convert(value, kind)


def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    found = _decoders.get(kind)
    if found is None:
        with _working_out:
            found = _decoders[kind] = msgspec.json.Decoder(kind)
    return found
