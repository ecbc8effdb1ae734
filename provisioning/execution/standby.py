"""A process that is started before its task is known: it has parsed the entry by the time that it gets its request.

It is of the same making as one that is started late: the same words, environment, descriptors and limits, a group and a
log of its own. It serves one attempt, or none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from provisioning.clock import boottime
from provisioning.errors import SpoolUnusable
from provisioning.execution.process import Process
from provisioning.storage import files
from provisioning.storage.logs import name_attempt_log, open_nameless_log

PATIENCE_SECONDS = 30.0
"""So long it waits for a task."""


class Standby:
    """At most one process that waits."""

    def __init__(self, scratch: files.Scratch) -> None:
        self._scratch = scratch
        self._process: Process | None = None
        self._kind: tuple[tuple[str, ...], dict[str, str]] = ((), {})

    @property
    def pid(self) -> int:
        """Its process, which is no part of any attempt; 0 where there is none."""
        return self._process.pid if self._process else 0

    def prepare(self, argv: tuple[str, ...], environment: Mapping[str, str]) -> None:
        """Have a process wait, if none does. Where none can be started, none does."""
        if self._process is not None:
            return
        with contextlib.suppress(SpoolUnusable, OSError):
            self._path, self._log = open_nameless_log(self._scratch)
            self._kind = (argv, dict(environment))
            self._since = boottime()
            try:
                self._process = Process(argv, environment, self._log)
            finally:
                if self._process is None:
                    self._let_go()

    def take(self, argv: tuple[str, ...], environment: Mapping[str, str], log: Path) -> tuple[Process, int] | None:
        """The process and its log, which is now at `log`; None where another than this one is needed, and it ends."""
        if self._process is None:
            return None
        serves = self._kind == (argv, environment) and not self._process.ended()
        if not serves or not name_attempt_log(self._path, log):
            self.end()
            return None
        taken, self._process = self._process, None
        return taken, self._log

    def tire(self) -> None:
        """End it if it has waited for long."""
        if self._process is not None and boottime() >= self._since + PATIENCE_SECONDS:
            self.end()

    def end(self) -> None:
        """End the process that waits, if one does."""
        if self._process is not None:
            self._process.abandon()
            self._process = None
            self._let_go()

    def _let_go(self) -> None:
        os.close(self._log)
        files.remove(self._path)
