"""Errors of the operating system as errors of the spool: what, where and what to do."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from provisioning.errors import SpoolUnusable

_HINTS = {
    errno.ENOSPC: "free some space or inodes on that disk",
    errno.EDQUOT: "the disk quota of this user is used up",
    errno.EROFS: "the file system is mounted read-only",
    errno.EACCES: "the spool must belong to the user who works it",
    errno.EPERM: "the spool must belong to the user who works it",
    errno.EIO: "the disk reports errors: check it before anything else",
}
_WRONG_KIND = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EEXIST}
"""What the system says where a link, folder, FIFO, socket or plain file is not what the format has there."""


class WrongKind(SpoolUnusable):
    """A name of the spool stands for another kind of file than the format says."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, hint="see: provisioning spool check")
        self.reason = reason


@contextlib.contextmanager
def naming(path: Path | str, deed: str = "write") -> Iterator[None]:
    """Turn an operating system error about `path` into one that says what, where and what to do."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        message = f"cannot {deed} {path}: {reason}"
        if error.errno in _WRONG_KIND:
            raise WrongKind(message, reason) from error
        raise SpoolUnusable(message, hint=_HINTS.get(error.errno or 0, "see: provisioning spool check")) from error
