"""The system calls that change a spool, as they are made: each is a point at which something may go wrong."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

CHANGING = ("open", "write", "fsync", "rename", "link", "unlink", "mkdir", "rmdir", "posix_fallocate", "ftruncate")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Crash(BaseException):
    """The process that makes the call ends here."""


@dataclass
class Fault:
    """A disk that refuses."""

    number: int
    calls: tuple[str, ...]
    left: int


class Recorder(Protocol):
    """What has to know of every call that was made: the disk."""

    def around(self, name: str, original: Callable[..., Any], arguments: tuple[Any, ...], rest: dict[str, Any]) -> Any:
        """Make the call and note what it did."""

    def lose(self, descriptor: int) -> None:
        """A sync of it has failed."""


class Calls:
    """Stands between a program and the calls of `os` that change files; opening to read is none of them."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.count = 0
        """Calls so far."""
        self.before: Callable[[str], None] = lambda name: None
        """May raise an OSError, which the caller gets, or `Crash`."""
        self.after: Callable[[str], None] = lambda name: None
        """May raise `Crash`."""
        self.disk: Recorder | None = None
        self._dead = False
        self._bare = False
        for name in CHANGING:
            patched.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **rest: Any) -> Any:
            if self._bare or (name == "open" and not arguments[1] & _WRITING):
                return original(*arguments, **rest)
            if self._dead:
                if name in ("unlink", "rmdir"):
                    return None  # what a program does to clean up, which a dead one does not
                raise Crash
            return self._make(name, original, arguments, rest)

        return call

    def _make(self, name: str, original: Callable[..., Any], arguments: tuple[Any, ...], rest: dict[str, Any]) -> Any:
        self.count += 1
        result: Any = None
        try:
            self.before(name)
            result = self._record(name, original, arguments, rest)
            self.after(name)
        except Crash:
            if name == "open" and result is not None:
                os.close(result)
            self._dead = True
            raise
        except OSError:
            if name == "fsync" and self.disk is not None:
                self.disk.lose(arguments[0])
            raise
        return result

    def _record(self, name: str, original: Callable[..., Any], arguments: tuple[Any, ...], rest: dict[str, Any]) -> Any:
        if self.disk is None:
            return original(*arguments, **rest)
        self._bare = True
        try:
            return self.disk.around(name, original, arguments, rest)
        finally:
            self._bare = False

    @contextlib.contextmanager
    def life(self) -> Iterator[None]:
        """A process lives in it; after its `Crash` nothing that it still does, to clean up, has any effect."""
        try:
            yield
        finally:
            self._dead = False

    @contextlib.contextmanager
    def unwatched(self) -> Iterator[None]:
        """What is done here is not the program's doing."""
        before, self._bare = self._bare, True
        try:
            yield
        finally:
            self._bare = before
