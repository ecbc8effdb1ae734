"""Exclusive kernel locks on files of the spool."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from provisioning.storage import files, reading
from provisioning.storage.naming import naming


class Lock:
    """An exclusive kernel lock on a file that still has its name; gone when its process is gone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self, *, wait: bool = False) -> bool:
        """Whether the lock was got: False where another has it, or where its folder is no longer there.

        Not by `filelock.FileLock`: that makes a missing folder, and unlocks for all who inherited the descriptor.
        """
        from filelock import lock_descriptor  # here: who submits or looks must start fast, and takes no lock

        with naming(self._path, "lock"):
            try:
                descriptor = files.open_lock(self._path)
            except FileNotFoundError:
                return False
            try:
                if lock_descriptor(descriptor, blocking=wait) and reading.names_this(self._path, descriptor):
                    self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        return self._descriptor is not None

    def share(self) -> None:
        """Wait for the lock and have it together with others who share it."""
        with naming(self._path, "lock"):
            self._descriptor = files.open_lock(self._path)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def release(self) -> None:
        """Let it go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
