"""What a backup may hold: the names of its members, how large each may be, and the record that ends it."""

from __future__ import annotations

import hashlib
import re

import msgspec

from provisioning.core.identifiers import Digest, Ulid
from provisioning.core.workflow import (
    Instant,
    OutcomeRecord,
    Plan,
    Request,
    Submission,
    TaskCheckpoint,
    WorkflowCheckpoint,
)
from provisioning.storage.checkpoint import MAX_PLAN_BYTES, MAX_RECORD_BYTES
from provisioning.storage.ids import Reservation

CONTENTS = "backup.json"
"""The last member of every backup: without it, the file was cut off."""

_ULID = "[0-7][0-9abcdefghjkmnpqrstvwxyz]{25}"
_TASK = r"[a-z0-9][a-z0-9_-]{0,63}(\.[a-z0-9][a-z0-9_-]{0,63}){0,4}(~undo)?"
_FOREVER = 1 << 40
MEMBERS = {
    "format": 64,
    CONTENTS: MAX_RECORD_BYTES,
    rf"(incoming|workflows)/{_ULID}/(manifest\.(toml|json)|plan\.json)": MAX_PLAN_BYTES,
    rf"(incoming|workflows)/{_ULID}/(submission\.json|origin\.json|manifest\.sig)": MAX_RECORD_BYTES,
    rf"workflows/{_ULID}/workflow\.json": MAX_RECORD_BYTES,
    rf"workflows/{_ULID}/events\.jsonl": _FOREVER,
    rf"workflows/{_ULID}/tasks/{_TASK}\.json": MAX_RECORD_BYTES,
    rf"workflows/{_ULID}/outcomes/{_TASK}\.[1-9][0-9]{{0,8}}\.json": MAX_RECORD_BYTES,
    rf"workflows/{_ULID}/logs/{_TASK}\.[1-9][0-9]{{0,8}}\.log": _FOREVER,
    rf"requests/{_ULID}\.{_ULID}\.json": MAX_RECORD_BYTES,
    r"ids/[^/]+\.(json|cleaned)": MAX_RECORD_BYTES,
    r"nulib/[^/]+/(catalogue\.json|(tree|entries)/.+)": MAX_PLAN_BYTES,
    r"rejected/.+": _FOREVER,
    r"audit/audit(\.[0-9]{12})?\.jsonl": _FOREVER,
}
"""The names that a backup may have, as patterns, and the most bytes that the format lets such a file have."""
_MEMBERS = {re.compile(pattern + r"\Z", re.DOTALL): limit for pattern, limit in MEMBERS.items()}


_RECORDS: dict[str, type] = {
    rf"(incoming|workflows)/{_ULID}/submission\.json": Submission,
    rf"(incoming|workflows)/{_ULID}/plan\.json": Plan,
    rf"workflows/{_ULID}/workflow\.json": WorkflowCheckpoint,
    r"workflows/[^/]+/tasks/.+": TaskCheckpoint,
    r"workflows/[^/]+/outcomes/.+": OutcomeRecord,
    r"requests/.+": Request,
    r"ids/.+\.json": Reservation,
}


class Contents(msgspec.Struct, frozen=True):
    """What the last member of a backup says of those before it."""

    format: int
    made_at: Instant
    members: int
    digest: Digest
    """SHA-256 over name, size and bytes of each member, in their order."""
    gone: tuple[Ulid, ...]
    """Workflows that were cleaned up since any of them was copied: what there is of them counts for nothing."""


def limit_of(name: str) -> int | None:
    """The most bytes that a member of this name may have; None where the format has no such file."""
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        return None
    return next((limit for pattern, limit in _MEMBERS.items() if pattern.match(name)), None)


def record_of(name: str) -> type | None:
    """What a member of this name is decoded into; None where it is bytes to a backup."""
    return next((kind for pattern, kind in _RECORDS.items() if re.fullmatch(pattern, name, re.DOTALL)), None)


def measure(digest: hashlib._Hash, name: str, size: int) -> None:
    """Take a member into the digest; its bytes follow."""
    digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
