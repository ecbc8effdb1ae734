"""The instants at which a process changes a spool, and its death just before one of them."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


class WritePoints:
    """Counts what this process changes below a folder and ends it by SIGKILL just before one of these changes.

    For `selftest crash` alone. What is seen is what the interpreter announces (PEP 578): files opened for writing,
    made, renamed, linked and removed. Between two of them nothing changes that another process could find.
    """

    _NAMED = frozenset({"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir"})

    def __init__(self, root: Path, die_at: int) -> None:
        self.seen = 0
        self._prefix = f"{root}/"
        self._die_at = die_at
        sys.addaudithook(self._announced)

    def _announced(self, event: str, values: tuple[object, ...]) -> None:
        if event == "open":
            counts = isinstance(values[2], int) and bool(values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            counts = event in self._NAMED
        if counts and str(values[0]).startswith(self._prefix):
            self.seen += 1
            if self.seen == self._die_at:
                os.kill(os.getpid(), signal.SIGKILL)
