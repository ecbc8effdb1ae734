"""A worker process: takes one attempt after the other from its pipe until the pipe's other end is gone.

It begins each without a child but the process of the attempt itself, which may have waited for it, so that every orphan
it adopts is the attempt's: where one was let live, it leaves.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from provisioning.core.workflow import OutcomeRecord
from provisioning.errors import ProvisioningError
from provisioning.execution.attempt import Attempts, InSpool, NotStarted, Place
from provisioning.execution.executor import Ahead, AttemptRequest, Key
from provisioning.execution.family import adopt_orphans, reap
from provisioning.processes import resident
from provisioning.storage import files
from provisioning.storage.checkpoint import WorkflowFolder, encode


class Command(msgspec.Struct, frozen=True):
    """What the pool tells a worker: run an attempt, have a process wait for one, or else end the present one."""

    folder: str = ""
    request: AttemptRequest | None = None
    ahead: Ahead | None = None


class Report(msgspec.Struct, frozen=True):
    """What a worker tells the pool: first that the slot is free, then how the attempt ended."""

    key: Key
    slot_free: bool = False
    record: OutcomeRecord | None = None
    not_started: str = ""
    """Why the operation was not begun: nothing of it has happened."""
    problem: str = ""
    """Why the worker could not see the attempt through."""
    leaves: bool = False
    """The worker's last word: it has a child left, which a later attempt could not tell from its own."""


_COMMAND = msgspec.msgpack.Decoder(Command)


class _Ears:
    """What a worker hears: commands on the pipe, TERM from whoever adopted its attempt."""

    lag_seconds = 0.0

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._wakeup, self._wakeup_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._cancelled = False
        self.gone = False
        self.descriptor = self._both()
        signal.set_wakeup_fd(self._wakeup_end)
        signal.signal(signal.SIGTERM, lambda *_: None)  # the wakeup descriptor tells
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def _both(self) -> int:
        """One descriptor that is readable when the pipe or the signal's descriptor is."""
        self._epoll = select.epoll()
        self._epoll.register(self._connection.fileno(), select.EPOLLIN)
        self._epoll.register(self._wakeup, select.EPOLLIN)
        return self._epoll.fileno()

    def cancelled(self) -> bool:
        """Whether the present attempt is to be ended."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wakeup, 64):
                self._cancelled = True
        try:
            while not self.gone and self._connection.poll():
                self._connection.recv_bytes()
                self._cancelled = True
        except (EOFError, OSError):
            self._leave()
        return self._cancelled

    def _leave(self) -> None:
        """The orchestrator is gone: the attempt goes on, for its outcome counts."""
        self.gone = True
        _let_go_of(2)  # whoever reads what the orchestrator said must not wait for us
        self._epoll.unregister(self._connection.fileno())

    def next(self, seconds: float | None = None) -> Command | None:
        """The next command, one that says nothing when the time is over; None when there will be no more.

        A cancel that came after its attempt had ended says nothing either.
        """
        if self.gone:
            return None
        self._cancelled = False
        ready = self._epoll.poll(seconds)
        if not ready:
            return Command()
        if any(descriptor == self._wakeup for descriptor, _ in ready):
            return None  # told to end while idle
        try:
            return _COMMAND.decode(self._connection.recv_bytes())
        except (EOFError, OSError):
            return None

    def tell(self, report: Report) -> None:
        """Tell the pool, if it is still there."""
        with contextlib.suppress(OSError):
            self._connection.send_bytes(msgspec.msgpack.encode(report))


def _attempt(attempts: Attempts, request: AttemptRequest, place: Place, ears: _Ears) -> Report:
    key = request.key
    try:
        record = attempts.run(request, place, lambda: ears.tell(Report(key, slot_free=True)))
    except NotStarted as error:
        return Report(key, not_started=str(error))
    except (ProvisioningError, OSError) as error:
        return Report(key, problem=str(error))
    return Report(key, record=record)


def _let_go_of(*descriptors: int) -> None:
    """Put /dev/null in their place."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in descriptors:
        os.dup2(nothing, descriptor)
    os.close(nothing)


def _keep_only(connection: Connection) -> None:
    """Close what the forkserver passed on: an attempt would inherit it, and the forkserver would live as long as we."""
    os.set_inheritable(connection.fileno(), False)
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listed the folder
            if int(name) not in (0, 1, 2, connection.fileno()):
                os.close(int(name))


def work(connection: Connection, scratch_path: str) -> None:
    """Run attempts until the pipe ends, or one leaves a process behind. The whole life of a worker process."""
    _keep_only(connection)
    _let_go_of(0, 1)
    os.setsid()  # not in the terminal's foreground group: its ^C is not ours
    adopt_orphans()
    os.chdir("/")
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ears = _Ears(connection)
    try:
        scratch = files.Scratch(Path(scratch_path))
        me = resident(os.fstat(scratch.descriptor))
        files.write_atomic(scratch.path / "process", encode(me), durable=False, scratch=scratch)
    except ProvisioningError as error:
        while refused := ears.next():
            if refused.request:
                ears.tell(Report(refused.request.key, not_started=str(error)))
                break
        os._exit(1)
    attempts, folder = Attempts(scratch, ears), None
    while command := ears.next(attempts.standby.patience()):
        if command.request is None:
            attempts.standby.prepare(command.ahead) if command.ahead else attempts.standby.tire()
            continue
        if folder is None or command.folder != str(folder.path):
            folder = WorkflowFolder(Path(command.folder), scratch)
        report = _attempt(attempts, command.request, InSpool(command.request, folder, scratch), ears)
        leaves = reap()
        ears.tell(msgspec.structs.replace(report, leaves=leaves))
        if leaves:
            break
    attempts.close()
    scratch.close()
    os._exit(0)  # nothing of the forkserver's is ours to clean up
