"""Files that grow and are never rewritten: kept open, synced record by record, begun anew, half a record taken back."""

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


class Appender:
    """A file that grows line by line, kept open: it stays the one that it was wherever its folder is moved."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def append(self, data: bytes) -> None:
        """Add to the end of the file in one write; a FIFO in its place is an error and waits for nobody."""
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, files.APPEND | os.O_CLOEXEC, 0o600)
        files.write_all(self._descriptor, data)

    def close(self) -> None:
        """Let the file go."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def rotate(path: Path, limit: int) -> None:
    """Begin a new file where this one has outgrown the limit; one older one is kept."""
    if os.stat(path).st_size > limit:
        os.rename(path, path.with_name(f"{path.name}.1"))
