"""Targets and groups across processes: byte ranges of `locks/targets`, held as long as anything of an attempt lives.

A target is one byte, shared or exclusive; a group is as many bytes as it has room, of which an attempt holds one.
They are open-file-description locks (fcntl(2), F_OFD_SETLK) on a descriptor that the attempt inherits. Taken in the
order of their places and never waited for, they cannot lead into a deadlock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from provisioning.errors import SpoolUnusable
from provisioning.storage import files

MOST = 1000
"""No group has more room."""
_GETLK, _SETLK = 36, 37
"""F_OFD_GETLK and F_OFD_SETLK of Linux, which Python has by name only from 3.13 on."""
_FLOCK = struct.Struct("hhqqi4x")
_PLACES = 1 << 50


class Wanted(NamedTuple):
    """What an attempt must hold: a target, or room in a group."""

    name: str
    """As people know it: `target:demo/server/web-1`, `group:upcloud`."""
    exclusive: bool = True
    room: int = 1

    @property
    def place(self) -> int:
        """Its first byte."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return int.from_bytes(digest[:8], "big") % _PLACES * MOST


def _lock(descriptor: int, command: int, kind: int, place: int) -> int:
    """Ask for one byte; what `command` answers: the kind of lock that is in the way, or F_UNLCK."""
    request = _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0)
    return int(_FLOCK.unpack(fcntl.fcntl(descriptor, command, request))[0])


def _take(descriptor: int, wanted: Wanted) -> bool:
    kind = fcntl.F_WRLCK if wanted.exclusive else fcntl.F_RDLCK
    for place in range(wanted.place, wanted.place + wanted.room):
        with contextlib.suppress(BlockingIOError, PermissionError):
            _lock(descriptor, _SETLK, kind, place)
            return True
    return False


@contextlib.contextmanager
def taken(locks: Path, wanted: Sequence[Wanted]) -> Iterator[tuple[int | None, str]]:
    """A descriptor that holds all that is wanted, or what of it somebody else holds. It is closed, never unlocked."""
    if not wanted:
        yield None, ""
        return
    descriptor = files.open_lock(locks / "targets")
    try:
        for each in sorted(wanted, key=lambda one: one.place):
            if not _take(descriptor, each):
                yield None, each.name
                return
        yield descriptor, ""
    finally:
        os.close(descriptor)


class Look:
    """Whether others hold something, without taking it."""

    def __init__(self, locks: Path) -> None:
        self._path = locks / "targets"
        self._descriptor: int | None = None

    def in_the_way(self, wanted: Iterable[Wanted]) -> str:
        """The first of these that another open file holds; nothing where all are free."""
        if self._descriptor is None:
            try:
                self._descriptor = files.open_lock(self._path)
            except OSError as error:
                raise SpoolUnusable(f"{self._path} cannot be opened: {error.strerror}") from error
        for each in wanted:
            kind = fcntl.F_WRLCK if each.exclusive else fcntl.F_RDLCK
            places = range(each.place, each.place + each.room)
            if all(_lock(self._descriptor, _GETLK, kind, place) != fcntl.F_UNLCK for place in places):
                return each.name
        return ""

    def close(self) -> None:
        """Look no more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
