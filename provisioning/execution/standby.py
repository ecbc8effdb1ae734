"""A process that is started before its task is known: it has parsed the entry by the time that it gets its request.

It is of the same making as one that is started late: the same words, environment, descriptors and limits, a group and a
log of its own. It serves one attempt, or none, and waits in a worker that has no attempt.
"""

from __future__ import annotations

import contextlib
import os

from provisioning.clock import boottime
from provisioning.errors import SpoolUnusable
from provisioning.execution.executor import Ahead, AttemptRequest
from provisioning.execution.process import Process
from provisioning.storage import files
from provisioning.storage.logs import name_attempt_log, open_nameless_log
from provisioning.storage.naming import StrPath

PATIENCE_SECONDS = 30.0
"""So long it waits for a task."""


class Standby:
    """At most one process that waits."""

    def __init__(self, scratch: files.Scratch) -> None:
        self._scratch = scratch
        self._process: Process | None = None
        self._kind = Ahead((), {})

    def prepare(self, kind: Ahead) -> None:
        """Have such a process wait, in the place of any other. Where none can be started, none does."""
        self.end()
        with contextlib.suppress(SpoolUnusable, OSError):
            self._path, self._log = open_nameless_log(self._scratch)
            self._kind, self._since = kind, boottime()
            try:
                self._process = Process(kind.argv, kind.environment, self._log)
            finally:
                if self._process is None:
                    self._let_go()

    def take(self, request: AttemptRequest, log: StrPath) -> tuple[Process, int] | None:
        """The process and its log, which is now at `log`; None where another than this one is needed, and it ends.

        What holds the targets of an attempt is inherited at the start: no process that waited has it.
        """
        if self._process is None:
            return None
        serves = self._kind == Ahead(request.argv, request.environment) and not request.wanted
        if not serves or self._process.ended() or not name_attempt_log(self._path, log):
            self.end()
            return None
        taken, self._process = self._process, None
        return taken, self._log

    def patience(self) -> float | None:
        """So many seconds it will still wait; None where none does."""
        return None if self._process is None else max(0.0, self._since + PATIENCE_SECONDS - boottime())

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
