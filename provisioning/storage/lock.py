"""Exclusive kernel locks on files of the spool."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from provisioning.clock import boottime
from provisioning.storage import files, reading
from provisioning.storage.naming import naming

_POLL_SECONDS = 0.01
"""Between two tries to take a lock that another has: the kernel's own wait would have no end."""


class Lock:
    """An exclusive kernel lock on a file that still has its name; gone when its process is gone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self, *, wait_seconds: float = 0.0) -> bool:
        """Whether the lock was got: False where another has it for so long, or where its folder is no longer there.

        Not by `filelock.FileLock`: that makes a missing folder, and unlocks for all who inherited the descriptor.
        """
        from filelock import lock_descriptor  # here: who submits or looks must start fast, and takes no lock

        with naming(self._path, "lock"):
            try:
                descriptor = files.open_lock(self._path)
            except FileNotFoundError:
                return False
            try:
                until = boottime() + wait_seconds
                while not (got := lock_descriptor(descriptor, blocking=False)) and boottime() < until:
                    time.sleep(_POLL_SECONDS)
                if got and reading.names_this(self._path, descriptor):
                    self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        return self._descriptor is not None

    def share(self) -> bool:
        """Have the lock together with others who share it; False where somebody has it alone. It waits for nobody."""
        with naming(self._path, "lock"):
            descriptor = files.open_lock(self._path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                self._descriptor = descriptor
            except BlockingIOError:
                return False
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        return True

    def release(self) -> None:
        """Let it go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def holder(path: Path) -> int | None:
    """The pid of the process that has the lock of the file for itself, as the kernel's list says. Nothing is tried.

    None where nobody has it, and where the list does not tell: for a process of another pid namespace, and on file
    systems whose device there is not that of `stat`, such as btrfs.
    """
    with contextlib.suppress(OSError):
        status = os.stat(path, follow_symlinks=False)
        wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        with open("/proc/locks", encoding="ascii") as lines:
            for line in lines:
                fields = line.split()  # "1: FLOCK ADVISORY WRITE 4711 08:01:131 0 EOF"
                if fields[1:2] == ["FLOCK"] and fields[3:4] == ["WRITE"] and fields[5:6] == [wanted]:
                    return int(fields[4])
    return None
