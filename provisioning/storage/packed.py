"""Tar files from anywhere, packed or not, read without letting them fill the memory."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from typing import BinaryIO

HEADER_BYTES = 1 << 20
"""No header of a member is longer: what says so would fill the memory."""
NOT_WHOLE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError, UnicodeError)
"""What tarfile and gzip raise of a file that is not what they read."""


class Bounded:
    """The bytes of a tar file, packed or not, of which no more are given out than a member may have."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.allowance = HEADER_BYTES

    def opened(self) -> BinaryIO:
        """This stream, unpacked."""
        head = self._file.read(2)
        self._file = _Rejoined(head, self._file)  # type: ignore[assignment]
        if head == b"\x1f\x8b":
            self._file = gzip.GzipFile(fileobj=self._file, mode="rb")  # type: ignore[assignment]
        return self  # type: ignore[return-value]

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.allowance -= len(data)
        if self.allowance < 0:
            raise tarfile.ReadError("a header is larger than any of a backup")
        return data


class _Rejoined:
    """A file of which the beginning was read already."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head = head
        self._file = file

    def read(self, size: int = -1) -> bytes:
        head, self._head = self._head, b""
        return head + self._file.read(size - len(head) if size > 0 else size)
