"""How far the operator's program was told: `notified.json`, a view. Where it is lost, what comes next is told."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from provisioning.core.workflow import FORMAT
from provisioning.errors import SpoolUnusable
from provisioning.storage import files
from provisioning.storage.checkpoint import encode, load
from provisioning.storage.spool import Spool


class Notified(msgspec.Struct, frozen=True):
    """What was told."""

    format: int
    n: int
    """Every record of the audit log up to this one."""


def notified_path(root: Path) -> Path:
    """Where it is."""
    return root / "notified.json"


def load_notified(root: Path) -> int | None:
    """The number of the last record that was told; None where that is not known."""
    with contextlib.suppress(FileNotFoundError, SpoolUnusable):
        return load(notified_path(root), Notified).n
    return None


def save_notified(spool: Spool, n: int) -> None:
    """Remember it. A full disk loses it: then some is told twice."""
    with contextlib.suppress(SpoolUnusable, OSError):
        data, durable = encode(Notified(FORMAT, n)), files.DURABLE["view"]
        files.write_atomic(notified_path(spool.root), data, durable=durable, whole=True, scratch=spool.scratch)
