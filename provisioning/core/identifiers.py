"""Names that become paths, how a workflow_id is made, and the identity of a process."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec

TASK_ID = re.compile(r"(?=[^~]{1,200}(~|\Z))[a-z0-9][a-z0-9_-]{0,63}(\.[a-z0-9][a-z0-9_-]{0,63}){0,4}(~undo)?\Z")
"""A task id; the parts behind dots come from `for_each` and from planning operations. It becomes a file's name.

With `~undo` it is what undoes the task of that id; no manifest can name one.
"""
WORKFLOW_ID = re.compile(r"[0-7][0-9abcdefghjkmnpqrstvwxyz]{25}\Z")
"""A ULID in lower case."""

INFRA_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")
"""An infra: its settings are in a folder of that name."""

OPERATION_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}\.[a-z][a-z0-9-]{0,40}\Z")
"""An operation: its folder and its file in nulib."""

Ulid = Annotated[str, msgspec.Meta(pattern="^" + WORKFLOW_ID.pattern)]
TaskId = Annotated[str, msgspec.Meta(pattern="^" + TASK_ID.pattern)]
OperationName = Annotated[str, msgspec.Meta(pattern="^" + OPERATION_NAME.pattern)]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""A SHA-256 in hexadecimal."""
CHOSEN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
ChosenId = Annotated[str, msgspec.Meta(pattern="^" + CHOSEN_ID.pattern)]
"""The `id` of a manifest. What a file names that becomes part of a path is of one of these types: none leads out."""

Executing = Literal["local", "slurm"]
"""Where attempts are made: on this host, or on the nodes of a Slurm cluster."""
LOCAL: Final = "local"
SLURM: Final = "slurm"

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
MAX_MILLISECONDS = (1 << 48) - 1


def ulid(milliseconds: int, randomness: bytes) -> str:
    """A ULID from a Unix time in milliseconds and ten random bytes (https://github.com/ulid/spec)."""
    value = min(milliseconds, MAX_MILLISECONDS) << 80 | int.from_bytes(randomness[:10], "big")
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def ulid_milliseconds(name: str) -> int:
    """The Unix time in milliseconds that a ULID was made from."""
    value = 0
    for letter in name[:10]:
        value = value << 5 | _ALPHABET.index(letter)
    return value


class Process(msgspec.Struct, frozen=True):
    """One process of one boot of a host: an identity that a reused pid cannot borrow."""

    boot_id: str
    pid: int
    starttime: int
    """Clock ticks between the boot and its start: field 22 of /proc/<pid>/stat."""


class Resident(Process, frozen=True, omit_defaults=True):
    """A process that says of itself, in a folder, that this is where it is at work."""

    folder: str = ""
    """Which folder that is, whatever its name: in a copy of it nobody is. Empty is not told."""
