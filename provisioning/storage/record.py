"""`orchestrator.json`: who works a spool, as it says itself. A view, which may be lost: the lock is the truth."""

from __future__ import annotations

import contextlib
import os
from datetime import datetime
from pathlib import Path

import msgspec

from provisioning.core.identifiers import Resident
from provisioning.core.workflow import FORMAT
from provisioning.errors import SpoolUnusable
from provisioning.processes import identity, is_alive, lives_in
from provisioning.storage.checkpoint import load
from provisioning.storage.lock import holder


class OrchestratorRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `orchestrator.json` says of the process that holds the orchestrator's lock; empty is not known."""

    format: int
    process: Resident
    """And in which folder it works: that of the spool, wherever that is."""
    host: str = ""
    started_at: datetime | None = None
    version: str = ""
    slots: int = 0
    root: str = ""
    """Where the spool is that it works, by its path."""
    draining: bool = False
    """Whether it starts nothing more, and ends when what runs has ended."""

    def state(self, root: Path) -> str:
        """What it does for the spool that is at `root` now: `running`, `draining` or `away`.

        A spool that was renamed still has its orchestrator, which waits for it to be back at its path.
        """
        try:
            # As that process sees the path: a unit of systemd may have mounts of its own.
            here = not self.root or os.path.samestat(
                os.stat(f"/proc/{self.process.pid}/root{self.root}"), os.stat(root)
            )
        except PermissionError:
            here = True  # it cannot be told
        except OSError:
            here = False
        if not here:
            return "away"
        return "draining" if self.draining else "running"


def read(root: Path) -> OrchestratorRecord | None:
    """What the present or the last orchestrator said of itself, if that can be read."""
    with contextlib.suppress(FileNotFoundError, SpoolUnusable):
        return load(root / "orchestrator.json", OrchestratorRecord)
    return None


def find_running(root: Path, lock: Path) -> OrchestratorRecord | None:
    """The living orchestrator of the spool at `root`, whose lock that is. Where its record is lost, its process alone.

    The record of a copied spool is that of the original's.

    Readers never try a lock: the kernel's list of locks is asked who has it.
    """
    record = read(root)
    with contextlib.suppress(FileNotFoundError):
        if record is not None and is_alive(record.process) and lives_in(record.process, os.stat(root)):
            return record
    pid = holder(lock)
    process = identity(pid) if pid else None
    return OrchestratorRecord(FORMAT, Resident(process.boot_id, process.pid, process.starttime)) if process else None
