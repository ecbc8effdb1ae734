"""The local executor: worker processes of our own, one pipe each, started when needed and ended when idle."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.process import active_children
from typing import Any

import msgspec

from provisioning.clock import boottime, new_ulid
from provisioning.execution.executor import AttemptRequest, Key, News, Seen
from provisioning.execution.worker import Command, Report, work
from provisioning.processes import identity, send_signal
from provisioning.storage.spool import Spool

_REPORT = msgspec.msgpack.Decoder(Report)

LEAVE_SECONDS = 1.0
"""So long an idle worker may take to leave before it is made to; one that is stopped would never."""
LATE_SECONDS = 1.0
"""After an attempt's deadline and grace, and from then on: its worker is continued so often, should it be stopped."""


class _Worker:
    """One worker process as the pool sees it."""

    def __init__(self, process: ForkServerProcess, connection: Connection, name: str) -> None:
        self.process = process
        self.connection = connection
        self.name = name
        self.key: Key | None = None
        self.holds_slot = False
        self.leaves = False
        """Whether it has said its last word."""
        self.late_at: float | None = None
        """The boottime by which its attempt must have ended, if it has a deadline."""
        self._identity = identity(process.pid) if process.pid else None
        self.idle_since = boottime()

    def tell(self, command: Command) -> bool:
        """Send a command; whether that could be done."""
        try:
            self.connection.send_bytes(msgspec.msgpack.encode(command))
        except OSError:
            return False
        return True

    def go_on(self) -> None:
        """Continue it if it is stopped: it alone can end its attempt and say how."""
        if self._identity:
            send_signal(self._identity, signal.SIGCONT)


class Pool:
    """Runs attempts in up to `slots` processes at once on this host."""

    def __init__(self, spool: Spool, slots: int, idle_seconds: float) -> None:
        self._spool = spool
        self._slots = slots
        self._idle_seconds = idle_seconds
        self._workers: dict[str, _Worker] = {}
        self._by_key: dict[Key, _Worker] = {}
        # The forkserver is a `python -c`, which would import from the present folder before anything else.
        os.chdir("/")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["provisioning.execution.preload"])
        forkserver.ensure_running()  # now, so that it has imported all by the time a worker is wanted

    def assign(self, key: Key) -> str:
        """Choose an idle worker for the attempt, or start one."""
        idle = (worker for worker in self._workers.values() if worker.key is None and not worker.leaves)
        worker = next(idle, None) or self._hire()
        worker.key, worker.holds_slot = key, True
        self._by_key[key] = worker
        return worker.name

    def _hire(self) -> _Worker:
        name = new_ulid()
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(theirs, str(self._spool.tmp / name)), name=f"worker {name}")
        try:
            process.start()
        except (OSError, EOFError, RuntimeError) as error:
            ours.close()
            if isinstance(error, OSError):
                raise
            # The forkserver could not fork, or has gone; the next start begins another.
            raise OSError(errno.EAGAIN, "no worker can be started: what forks them gave no answer") from error
        finally:
            theirs.close()
        self._workers[name] = worker = _Worker(process, ours, name)
        return worker

    def start(self, request: AttemptRequest) -> None:
        """Send the attempt to the worker that was assigned."""
        folder = self._spool.workflows / request.key.workflow_id
        worker = self._by_key[request.key]
        if not worker.tell(Command(str(folder), request)):
            worker.process.kill()  # nothing of it runs yet; if it is not dead already, it would wait for ever
        if request.timeout_seconds is not None:
            worker.late_at = boottime() + request.timeout_seconds + request.grace_seconds + LATE_SECONDS

    def withdraw(self, key: Key) -> None:
        """Make the worker idle again: nothing was sent to it."""
        if worker := self._by_key.get(key):
            self._release(worker)

    def _release(self, worker: _Worker) -> None:
        if worker.key is not None:
            self._by_key.pop(worker.key, None)
        worker.key, worker.holds_slot, worker.idle_since, worker.late_at = None, False, boottime(), None

    def cancel(self, key: Key) -> None:
        """Have the attempt's worker end it."""
        if worker := self._by_key.get(key):
            worker.tell(Command())
            worker.go_on()

    def free_slots(self) -> int:
        """Slots without a running process; outcomes may still be on their way to the disk."""
        return self._slots - sum(worker.holds_slot for worker in self._workers.values())

    def waitables(self) -> Sequence[Any]:
        """The workers' pipes and sentinels."""
        workers = self._workers.values()
        return [*(worker.connection for worker in workers), *(worker.process.sentinel for worker in workers)]

    def news(self) -> Iterator[News]:
        """Read every report that has come, then see which workers have died."""
        for worker in list(self._workers.values()):
            dead = not worker.process.is_alive()  # asked before the pipe is read, so that no last word is missed
            yield from self._reports(worker)
            if dead:
                key = worker.key
                self._dismiss(worker)
                if key is not None:
                    yield News(key, Seen.LOST, problem="its worker died")

    def _reports(self, worker: _Worker) -> Iterator[News]:
        try:
            while worker.connection.poll():
                report = _REPORT.decode(worker.connection.recv_bytes())
                if report.slot_free:
                    worker.holds_slot = False
                    continue
                self._release(worker)
                worker.leaves = report.leaves
                if report.not_started:
                    yield News(report.key, Seen.NOT_STARTED, problem=report.not_started)
                else:
                    yield News(report.key, Seen.ENDED if report.record else Seen.LOST, report.record, report.problem)
        except (EOFError, OSError):
            return

    def _dismiss(self, worker: _Worker) -> None:
        worker.connection.close()
        worker.process.join(LEAVE_SECONDS)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.process.close()
        del self._workers[worker.name]
        if worker.key is not None:
            self._release(worker)

    def trim(self, now: float) -> float | None:
        """End the workers that have been idle for long, and continue those whose attempts are overdue."""
        dues = []
        for worker in list(self._workers.values()):
            if worker.late_at is not None and worker.late_at <= now:
                worker.go_on()
                worker.late_at = now + LATE_SECONDS
            due = worker.late_at if worker.key else worker.idle_since + self._idle_seconds
            if worker.key is None and due is not None and due <= now:
                self._dismiss(worker)
            elif due is not None:
                dues.append(due)
        return min(dues, default=None)

    def close(self) -> None:
        """End idle workers; let the others finish by themselves, without anyone waiting for them."""
        for worker in list(self._workers.values()):
            if worker.key is None:
                self._dismiss(worker)
            else:
                worker.connection.close()
                _disown(worker.process)
        self._workers.clear()


def _disown(process: ForkServerProcess) -> None:
    """Keep the interpreter from joining the process at its exit: it outlives us on purpose.

    There is no public way; the set is what `multiprocessing.process.active_children` reads.
    """
    active_children()
    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]  # noqa: SLF001
