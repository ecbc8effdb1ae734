"""Errors of the operating system as errors of the spool: what, where and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from provisioning.errors import SpoolUnusable

StrPath: TypeAlias = str | Path
"""A path as text where each attempt passes: to make a Path of it takes as long as to open its file."""

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


class naming:  # noqa: N801 - reads as the statement that it is part of
    """Turn an operating system error about `path` into one that says what, where and what to do."""

    # A class, as a generator takes three times as long, and each attempt passes here a dozen times.
    __slots__ = ("_deed", "_path")

    def __init__(self, path: StrPath, deed: str = "write") -> None:
        self._path, self._deed = path, deed

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, OSError):
            return
        reason = os.strerror(error.errno) if error.errno else str(error)
        message = f"cannot {self._deed} {self._path}: {reason}"
        if error.errno in _WRONG_KIND:
            raise WrongKind(message, reason) from error
        raise SpoolUnusable(message, hint=_HINTS.get(error.errno or 0, "see: provisioning spool check")) from error
