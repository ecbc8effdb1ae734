"""Files whose records are synced one by one, and never rewritten: how they grow, and how half a record goes again."""

from __future__ import annotations

import os
from pathlib import Path

from provisioning.storage import files


def append_durably(path: Path, data: bytes) -> None:
    """Add to the end of the file and sync it, and its name where it is new. After an error nothing was added."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    new = not os.path.lexists(path)
    descriptor = os.open(path, flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        try:
            files.write_all(descriptor, data)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)  # what a failed sync leaves is not known: nobody is told of it
            raise
    finally:
        os.close(descriptor)
    if new:
        files.sync_dir(path.parent)


def cut(path: Path, size: int) -> None:
    """Take away all behind so many bytes, durably."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
