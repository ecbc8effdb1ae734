"""The local executor: worker processes of our own, one pipe each, started when needed and ended when idle."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import select
import signal
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.process import active_children

import msgspec

from provisioning.clock import boottime, new_ulid
from provisioning.execution.executor import Ahead, AttemptRequest, Key, News, Seen
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
        self.ahead: Ahead | None = None
        """The process that it was told to have waiting, until an attempt is begun in it."""
        self.late_at: float | None = None
        """The boottime by which its attempt must have ended, if it has a deadline."""
        self._identity = identity(process.pid) if process.pid else None
        self.idle_since = boottime()
        self.descriptors = (connection.fileno(), process.sentinel)

    def tell(self, command: Command) -> bool:
        """Send a command; whether that could be done."""
        try:
            self.connection.send_bytes(msgspec.msgpack.encode(command))
        except OSError:
            return False
        return True

    def go_on(self) -> None:
        """Continue it if it is stopped: it alone can end its attempt and say how."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Signal it, and no process that has its pid since."""
        if self._identity:
            send_signal(self._identity, number)


class Pool:
    """Runs attempts in up to `slots` processes at once on this host."""

    def __init__(self, spool: Spool, slots: int, idle_seconds: float) -> None:
        self._spool = spool
        self._folder = str(spool.workflows)
        self._slots = slots
        self._idle_seconds = idle_seconds
        self._workers: dict[str, _Worker] = {}
        self._by_key: dict[Key, _Worker] = {}
        self._by_descriptor: dict[int, _Worker] = {}
        """Each worker twice: by its pipe and by its sentinel."""
        self._busy = 0
        self._prepared: list[Ahead] = []
        """What was last wanted to wait; empty once something has begun since."""
        self._epoll = select.epoll()
        self.descriptor = self._epoll.fileno()
        # The forkserver is a `python -c`, which would import from the present folder before anything else.
        os.chdir("/")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["provisioning.execution.preload"])
        forkserver.ensure_running()  # now, so that it has imported all by the time a worker is wanted

    def assign(self, key: Key, argv: tuple[str, ...]) -> str:
        """Choose an idle worker for the attempt, or start one."""
        chosen: _Worker | None = None
        for worker in self._idle():
            if worker.ahead is not None and worker.ahead.argv == argv:
                chosen = worker
                break
            if chosen is None or (chosen.ahead and not worker.ahead):
                chosen = worker  # rather one whose process that waits is not wasted
        chosen = chosen or self._hire()
        chosen.key, chosen.holds_slot = key, True
        self._busy += 1
        self._by_key[key] = chosen
        return chosen.name

    def _idle(self) -> Iterator[_Worker]:
        return (worker for worker in self._workers.values() if worker.key is None and not worker.leaves)

    def prepare(self, likely: Sequence[Ahead]) -> None:
        """Have processes wait in idle workers, each beside those that run: its start takes the time of its worker.

        What has waited in vain, and ended, is started again only for a new guess, or once something has begun.
        """
        wanted = list(likely)
        if wanted == self._prepared:
            return
        self._prepared = list(likely)
        unwanted: list[_Worker] = []
        for worker in self._idle():
            if worker.ahead in wanted:
                wanted.remove(worker.ahead)
            else:
                unwanted.append(worker)
        unwanted.sort(key=lambda worker: worker.ahead is None)  # those in which none waits are taken first
        for ahead in wanted:
            try:
                worker = unwanted.pop() if unwanted else self._hire()
            except OSError:
                return  # the host has no room for more: those that are needed are started when they are
            worker.ahead, worker.idle_since = ahead, boottime()
            worker.tell(Command(ahead=ahead))

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
        for descriptor in worker.descriptors:
            self._by_descriptor[descriptor] = worker
            self._epoll.register(descriptor, select.EPOLLIN)
        return worker

    def start(self, request: AttemptRequest) -> None:
        """Send the attempt to the worker that was assigned."""
        worker = self._by_key[request.key]
        worker.ahead, self._prepared = None, []
        if not worker.tell(Command(f"{self._folder}/{request.key.workflow_id}", request)):
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
        self._free_slot(worker)
        worker.key, worker.idle_since, worker.late_at = None, boottime(), None

    def _free_slot(self, worker: _Worker) -> None:
        self._busy -= worker.holds_slot
        worker.holds_slot = False

    def cancel(self, key: Key) -> None:
        """Have the attempt's worker end it."""
        if worker := self._by_key.get(key):
            if not worker.tell(Command()):
                worker.signal(signal.SIGTERM)  # as whoever adopts its attempt would
            worker.go_on()

    def free_slots(self) -> int:
        """Slots without a running process; outcomes may still be on their way to the disk."""
        return self._slots - self._busy

    def news(self) -> Iterator[News]:
        """Read a report of each worker that has sent one; of one that has died all of them, and then its death."""
        ready = {descriptor for descriptor, _ in self._epoll.poll(0)}
        for worker in sorted({self._by_descriptor[descriptor] for descriptor in ready}, key=lambda each: each.name):
            dead = worker.process.sentinel in ready  # seen before the pipe is read, so that no last word is missed
            with contextlib.suppress(EOFError, OSError):
                if worker.connection.fileno() in ready:
                    yield from self._report(worker)
                while dead and worker.connection.poll():
                    yield from self._report(worker)
            if dead:
                key = worker.key
                self._dismiss(worker)
                if key is not None:
                    yield News(key, Seen.LOST, problem="its worker died")

    def _report(self, worker: _Worker) -> Iterator[News]:
        """Take one report; EOFError where there is none and never will be."""
        report = _REPORT.decode(worker.connection.recv_bytes())
        if report.slot_free:
            self._free_slot(worker)
            return
        self._release(worker)
        worker.leaves = report.leaves
        if report.not_started:
            yield News(report.key, Seen.NOT_STARTED, problem=report.not_started)
        else:
            yield News(report.key, Seen.ENDED if report.record else Seen.LOST, report.record, report.problem)

    def _forget(self, worker: _Worker) -> None:
        for descriptor in worker.descriptors:
            self._epoll.unregister(descriptor)
            del self._by_descriptor[descriptor]
        del self._workers[worker.name]

    def _dismiss(self, worker: _Worker) -> None:
        self._forget(worker)
        worker.connection.close()
        worker.process.join(LEAVE_SECONDS)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.process.close()
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
                self._forget(worker)
                worker.connection.close()
                _disown(worker.process)
        self._epoll.close()


def _disown(process: ForkServerProcess) -> None:
    """Keep the interpreter from joining the process at its exit: it outlives us on purpose.

    There is no public way; the set is what `multiprocessing.process.active_children` reads.
    """
    active_children()
    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]  # noqa: SLF001
