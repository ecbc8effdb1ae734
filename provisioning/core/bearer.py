"""Tokens by which callers elsewhere say who they are, and the hashes that are kept of them.

A token is 256 random bits, so a plain hash of it tells nothing and need not be slow.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from typing import Annotated

import msgspec

from provisioning.core.drop import OPERATOR
from provisioning.core.identifiers import Digest

PREFIX = "prov_"
"""By it those who look through repositories and logs for secrets know one."""


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One token of an operator, who may have several."""

    operator: Annotated[str, msgspec.Meta(pattern="^" + OPERATOR.pattern)]
    sha256: Digest


class Tokens(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of them: `tokens.toml`."""

    token: tuple[Token, ...] = ()


def token_of(randomness: bytes) -> str:
    """The token that these bytes are."""
    return PREFIX + urlsafe_b64encode(randomness).decode().rstrip("=")


def hash_of(token: str) -> str:
    """The SHA-256 of a token, in hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def operator_of(token: str, known: Iterable[Token]) -> str | None:
    """Whose token it is. It takes the same time whichever it is."""
    found, given = None, hash_of(token)
    for each in known:
        if hmac.compare_digest(each.sha256, given):
            found = each.operator
    return found
