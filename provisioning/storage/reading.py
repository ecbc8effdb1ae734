"""Reads files that must be plain ones: a link, FIFO or device in their place is an error and waits for nobody."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from provisioning.storage.naming import WrongKind, naming


def open_regular(path: Path) -> int:
    """A descriptor to read a regular file that is not reached through a link. FileNotFoundError where there is none."""
    with naming(path, "read"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            missing = error
        else:
            return regular(path, descriptor)
    raise missing


def regular(path: Path, descriptor: int) -> int:
    """The descriptor, if what it has open is a regular file; closed otherwise."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise WrongKind(f"{path} is not a regular file", "it is not a regular file")
    return descriptor


def read_regular(path: Path, limit: int) -> bytes:
    """All bytes of a regular file of at most `limit` bytes. FileNotFoundError where there is none."""
    with os.fdopen(open_regular(path), "rb") as file, naming(path, "read"):
        data = file.read(limit + 1)
    if len(data) > limit:
        raise WrongKind(f"{path} is larger than {limit} bytes", f"it is larger than {limit} bytes")
    return data
