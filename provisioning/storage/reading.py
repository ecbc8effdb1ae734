"""Looks at the spool without changing it: plain files, locks that are held, the names in a folder.

A link, FIFO or device in the place of a plain file is an error and waits for nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from provisioning.storage.naming import StrPath, WrongKind, naming

_SMALL_BYTES = 1 << 16
"""A file that is shorter is read by one call: the kernel gives all of it."""


def open_regular(path: StrPath) -> int:
    """A descriptor to read a regular file that is not reached through a link. FileNotFoundError where there is none."""
    with naming(path, "read"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            missing = error
        else:
            return regular(path, descriptor)
    raise missing


def regular(path: StrPath, descriptor: int) -> int:
    """The descriptor, if what it has open is a regular file; closed otherwise."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise WrongKind(f"{path} is not a regular file", "it is not a regular file")
    return descriptor


def read_regular(path: StrPath, limit: int) -> bytes:
    """All bytes of a regular file of at most `limit` bytes. FileNotFoundError where there is none."""
    descriptor = open_regular(path)
    try:
        with naming(path, "read"):
            data = os.read(descriptor, min(limit + 1, _SMALL_BYTES))
            if len(data) == _SMALL_BYTES:
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    data += file.read(limit + 1 - _SMALL_BYTES)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise WrongKind(f"{path} is larger than {limit} bytes", f"it is larger than {limit} bytes")
    return data


def names_this(path: Path, descriptor: int) -> bool:
    """Whether the name still means what the descriptor has open."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    return False


def is_locked(path: StrPath) -> bool:
    """Whether a process holds the lock of the file or folder. Only for whoever may act on it: readers never try one."""
    with naming(path, "look at the lock of"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def scratch_is_held(path: Path) -> bool:
    """Whether the process whose scratch folder this is lives. What is no folder was never anybody's."""
    try:
        return is_locked(path)
    except WrongKind:
        return False


def list_names(path: Path, *, folders: bool = False) -> list[str]:
    """The names in the folder, or those of its folders only; hidden ones are left out. A missing folder has none."""
    with naming(path, "read"), contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".")]
        return [entry.name for entry in found if not folders or entry.is_dir(follow_symlinks=False)]
    return []
