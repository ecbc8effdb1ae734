"""Tells the operator's program what has happened: `[notify]` of the config.

The audit log is what there is to tell, whichever process wrote it: its records are synced, numbered and in order. How
far it was told is in `notified.json`. So a notice is told at least once, with the same number again after a crash; and
the work on tasks neither knows of it nor waits for it.
"""

from __future__ import annotations

import logging
import os
import select
from collections import deque
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import msgspec

from provisioning.clock import boottime
from provisioning.config import Config
from provisioning.core.notices import Notice, notice_of
from provisioning.core.workflow import FORMAT
from provisioning.errors import ProvisioningError, SpoolUnusable
from provisioning.execution.hook import Hook
from provisioning.ownership import refuse_unless_ours
from provisioning.storage import logs, notified
from provisioning.storage.audit import Audit
from provisioning.storage.checkpoint import WorkflowFolder, encode
from provisioning.storage.lock import Lock
from provisioning.storage.spool import Spool
from provisioning.views.text import instant

_log = logging.getLogger(__name__)

TRY_SECONDS = 10.0
"""Between two tries to become the one process that tells."""
COMPLAIN_SECONDS = 300.0
"""Between two lines of the log that say that the audit log cannot be read."""
EVENT_BYTES = 64 << 10
"""So much of the end of a workflow's events is searched for the tasks that have failed."""
NAMED = 5
"""So many of them are named at most."""


class Hooks:
    """Runs the program for each notice, a few at once. One process of a spool does so; without a program, nobody."""

    def __init__(self, spool: Spool, config: Config) -> None:
        self._spool = spool
        self._config = config.notify
        environment = config.environment
        self._environment = {"PATH": environment.path, "HOME": environment.home, "LANG": environment.lang}
        self._environment |= environment.variables
        self._lock: Lock | None = None
        self._try_at = 0.0
        self._complain_at = 0.0
        self._growing: logs.Growing | None = None
        self._rest = b""
        self._read = 0
        """The number of the last record that was looked at."""
        self._waiting: deque[Notice] = deque()
        self._running: dict[int, Hook] = {}
        self._told: set[int] = set()
        """Notices that were told and are not yet behind `self._done`."""
        self._done = 0

    def waitables(self) -> list[int]:
        """Readable when a program has ended."""
        return [hook.descriptor for hook in self._running.values()]

    def next_due(self) -> float:
        """The boottime at which something has to be done here."""
        return min(
            [inf, *(hook.due() for hook in self._running.values()), *([boottime()] if self._may_start() else [])]
        )

    def look(self) -> None:
        """Note which programs have ended, and start one more; nothing here waits."""
        if not self._config.command:
            return
        try:
            if not self._is_ours():
                return
            self._read_on()
        except SpoolUnusable as error:
            if boottime() >= self._complain_at:
                self._complain_at = boottime() + COMPLAIN_SECONDS
                _log.error("nobody can be told of anything now: %s", error)
            if self._lock is None:
                return
        for n, hook in list(self._running.items()):
            if hook.ended():
                if failure := hook.failure():
                    _log.error("the program of [notify] was told notice %d and %s", n, failure)
                hook.close()
                del self._running[n]
                self._told.add(n)
        if self._may_start():
            self._start(self._waiting.popleft())
        self._move_on()

    def busy(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._running or self._waiting)

    def finish(self, seconds: float) -> None:
        """Tell what there is to tell, for so long at most."""
        deadline = boottime() + seconds
        self.look()
        while self.busy() and (left := deadline - boottime()) > 0:
            select.select(self.waitables(), [], [], max(0.0, min(left, self.next_due() - boottime(), 1.0)))
            self.look()

    def close(self) -> None:
        """Let go; programs that still run go on by themselves, and their notices are told again by the next process."""
        for hook in self._running.values():
            hook.close()
        self._running.clear()
        if self._growing is not None:
            self._growing.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _may_start(self) -> bool:
        return bool(self._waiting) and len(self._running) < self._config.at_once

    def _is_ours(self) -> bool:
        """Whether this process tells; it tries to become the one once in a while."""
        if self._lock is not None:
            return True
        if boottime() < self._try_at:
            return False
        self._try_at = boottime() + TRY_SECONDS
        lock = Lock(self._spool.root / "locks" / "notify")
        if not lock.take():
            return False
        try:
            self._begin()
        except BaseException:
            if self._growing is not None:
                self._growing.close()
                self._growing = None
            lock.release()
            raise
        self._lock = lock
        return True

    def _begin(self) -> None:
        """Go on behind what was told last; where nothing ever was, with what comes from now on."""
        audit = Audit(self._spool.root)
        self._growing = logs.Growing(self._spool.root / "audit" / "audit.jsonl")  # before the head: none is missed
        head = audit.head().n
        last = notified.load_notified(self._spool.root)
        self._read = self._done = head if last is None else min(last, head)
        if self._done < head:
            for record in audit.records(newest=head - self._done):
                self._take(record)
        if last is None:
            notified.save_notified(self._spool, self._done)

    def _read_on(self) -> None:
        assert self._growing is not None
        data = self._rest + self._growing.read()
        *lines, self._rest = data.split(b"\n")
        for line in lines:
            try:
                self._take(msgspec.json.decode(line, type=dict[str, Any]))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue

    def _take(self, record: dict[str, Any]) -> None:
        number = record.get("n")
        if not isinstance(number, int) or number <= self._read:
            return
        self._read = number
        notice = notice_of(record)
        if notice is not None and notice.event in self._config.on:
            self._waiting.append(notice)

    def _start(self, notice: Notice) -> None:
        command = self._config.command
        try:
            refuse_unless_ours(Path(command[0]), "program of [notify]", os.geteuid())
            data = encode(told(self._spool, notice))
            self._running[notice.n] = Hook(command, self._environment, data, self._config.seconds)
        except (ProvisioningError, OSError) as error:
            _log.error("notice %d cannot be told: %s", notice.n, error)
            self._told.add(notice.n)

    def _move_on(self) -> None:
        """Note how far everything was told."""
        open_ones = [*self._running, *(notice.n for notice in self._waiting)]
        done = min(open_ones) - 1 if open_ones else self._read
        if done > self._done:
            self._done = done
            self._told = {n for n in self._told if n > done}
            notified.save_notified(self._spool, done)


def told(spool: Spool, notice: Notice) -> dict[str, Any]:
    """What the program reads: the notice, the workflow, and why it did not end well. A few small files tell it."""
    page: dict[str, Any] = {"format": FORMAT, "notice": notice.n, "event": notice.event, "at": notice.at}
    page |= {"spool": str(spool.root), "workflow_id": notice.workflow_id, **notice.facts}
    path = spool.folder_path(notice.workflow_id)
    if path is None:
        return page
    folder = WorkflowFolder(path)
    try:
        submission, checkpoint = folder.submission(), folder.workflow()
        page |= {"name": submission.name, "infra": submission.infra, "operator": submission.operator}
        page |= {"tasks": submission.tasks, "submitted_at": instant(submission.submitted_at)}
        if checkpoint is not None:
            page |= {"state": str(checkpoint.state), "reason": checkpoint.reason, "counts": checkpoint.counts}
            page["started_at"] = instant(checkpoint.started_at) if checkpoint.started_at else None
            page["ended_at"] = instant(checkpoint.ended_at) if checkpoint.ended_at else None
        if notice.event in ("failed", "rolled-back", "waiting-for-person"):
            page["failed"] = list(_failed(folder))
    except (SpoolUnusable, FileNotFoundError) as error:
        page["unreadable"] = str(error)
    return page


def _failed(folder: WorkflowFolder) -> Iterator[dict[str, Any]]:
    """The tasks that have failed last, or wait for a person, with their errors."""
    found: dict[str, None] = {}
    for line in reversed(logs.tail_bytes(folder.path / "events.jsonl", EVENT_BYTES).splitlines()):
        try:
            event = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if event.get("event") == "task" and (event.get("state") == "failed" or event.get("outcome") == "interrupted"):
            found.setdefault(str(event.get("task_id")))
        if len(found) == NAMED:
            break
    for task_id in found:
        checkpoint = folder.task(task_id)
        last = checkpoint.last
        error = msgspec.structs.asdict(last.error) if last and last.error else None
        yield {
            "task_id": task_id,
            "attempt": last.number if last else None,
            "reason": checkpoint.reason,
            "error": error,
        }
