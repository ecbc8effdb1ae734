"""Sections of the configuration that are about the doors: what may come in by them, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Drop(msgspec.Struct, frozen=True):
    """What may come through the drop folders, how it must be proved, and how much of it there may be."""

    grace_seconds: float = 600.0
    """So long after its last change a file waits for the proof that it is whole."""
    max_bytes: int = 1 << 20
    trust_unsealed: bool = False
    """Take files that nothing proves whole: for those who only ever rename complete ones into the folder."""
    signature: str = "off"
    """`off`, `optional` or `required`."""
    parse_seconds: float = 0.3
    """Of processor time, for the text of one file."""
    parse_bytes: int = 256 << 20
    """Of memory, for one file."""
    max_values: int = 200_000
    files: int = 20_000
    """Of one operator at once in the folder; 0 is no bound, as below."""
    bytes: int = 1 << 30
    active_workflows: int = 20_000
    receipt_seconds: float = 30 * 86400.0
    """So long receipts are kept."""
    host: str = ""
    """What this host is called in `target_host`; empty: its own name."""


class Receive(msgspec.Struct, frozen=True):
    """What may come through `spool receive`."""

    signature: str = "off"


class Audit(msgspec.Struct, frozen=True):
    """The audit log: how large a part of it may be, and where its head is told."""

    bytes: int = 64 << 20
    syslog: Path = Path("/dev/log")
