"""One attempt, in a worker: spawn Nushell, pump its output into the log, keep the deadline, publish the outcome."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from provisioning.clock import boottime, now
from provisioning.core.states import Outcome, TaskState
from provisioning.core.workflow import FORMAT, OutcomeRecord, TaskError
from provisioning.errors import SpoolUnusable
from provisioning.execution.ending import Remnants, end_holders, signal_group
from provisioning.execution.executor import AttemptRequest
from provisioning.execution.family import reap
from provisioning.execution.result import Reply, read_reply
from provisioning.processes import identity
from provisioning.storage import files
from provisioning.storage.checkpoint import WorkflowFolder, encode
from provisioning.storage.logs import AttemptLog, attempt_is_alive, open_attempt_log

ROOM_BYTES = 64 << 10
"""Disk space made sure of before the attempt starts; an outcome without a large result always fits."""
RETRY_SECONDS = 1.0
"""Between two tries to record an outcome on a disk that refuses it."""
REAP_SECONDS = 10.0
"""Between two looks for orphans of the running process that have ended: they are the worker's to bury."""
SHORTAGES = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY})
"""Why a process cannot be started for now: the host has none, no memory, no descriptor to spare, or nu is written."""


class NotStarted(Exception):
    """The operation was not begun: nothing of it has happened, and another attempt may follow."""


class Signals(Protocol):
    """What the worker hears while an attempt runs."""

    descriptor: int

    def cancelled(self) -> bool:
        """Whether the attempt is to be ended."""


def run_attempt(
    request: AttemptRequest,
    folder: WorkflowFolder,
    scratch: files.Scratch,
    signals: Signals,
    slot_free: Callable[[], None],
) -> OutcomeRecord | None:
    """Run the attempt to its end and publish its outcome; None where it is no longer wanted.

    `slot_free` is called as soon as the process has ended, before what is left of it is.
    """
    _, task_id, number = request.key
    try:
        log = open_attempt_log(folder.log_path(task_id, number))
    except (SpoolUnusable, OSError) as error:
        raise NotStarted(str(error)) from error
    if log is None:
        return None
    try:
        if not _is_wanted(folder, request, scratch):
            return None
        outcome = folder.outcome_path(task_id, number)
        with _room(scratch, outcome.parent) as room:
            running = _Attempt(request, log, scratch)
            running.run(signals, slot_free)
            record = running.record()
            _publish(room, outcome.name, record)
    finally:
        os.close(log)
    path = folder.log_path(task_id, number)
    if attempt_is_alive(path):
        more = end_holders(path, request.grace_seconds)
        record = msgspec.structs.replace(record, leftovers=(*record.leftovers, *more))
    return msgspec.structs.replace(record, result=None)


def _is_wanted(folder: WorkflowFolder, request: AttemptRequest, scratch: files.Scratch) -> bool:
    """Whether the checkpoint still says that this attempt is starting, here. Asked under the attempt's lock."""
    try:
        checkpoint = folder.task(request.key.task_id)
    except SpoolUnusable:
        return False
    last = checkpoint.last
    return (
        checkpoint.state is TaskState.RUNNING
        and last is not None
        and (last.number, last.worker, last.outcome) == (request.key.attempt, scratch.path.name, None)
        and folder.outcome(request.key.task_id, request.key.attempt) is None
    )


@contextlib.contextmanager
def _room(scratch: files.Scratch, folder: Path) -> Iterator[files.Room]:
    """Room for the outcome, or NotStarted."""
    try:
        room = files.Room(scratch, folder)
    except SpoolUnusable as error:
        raise NotStarted(str(error)) from error
    with contextlib.closing(room):
        try:
            room.make(ROOM_BYTES)
        except SpoolUnusable as error:
            raise NotStarted(str(error)) from error
        yield room


def _publish(room: files.Room, name: str, record: OutcomeRecord) -> None:
    """Make the outcome durable, however long the disk takes to have room: work done is never called failed.

    What a failed write or sync has touched is given up: each try is in a new file.
    """
    data = encode(record)
    while True:
        try:
            room.publish(name, data)
            return
        except SpoolUnusable as error:
            _wait_for_room(error)
        while True:
            try:
                room.make(max(len(data), ROOM_BYTES))
                break
            except SpoolUnusable as error:
                _wait_for_room(error)


def _wait_for_room(error: SpoolUnusable) -> None:
    cause = error.__cause__
    if not isinstance(cause, OSError) or cause.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise error
    select.select([], [], [], RETRY_SECONDS)


class _Attempt:
    """The process of an attempt while it runs."""

    def __init__(self, request: AttemptRequest, log: int, scratch: files.Scratch) -> None:
        self._request = request
        self._log = AttemptLog(log, request.log_bytes)
        self._scratch = scratch
        self._lock_descriptor = log
        self._end_reason: Outcome | None = None
        self._leftovers: tuple[int, ...] = ()
        self._exit_code: int | None = None
        self._signal: int | None = None
        self._reply = Reply()
        self.started_at: datetime = now()
        self.ended_at: datetime = self.started_at

    def run(self, signals: Signals, slot_free: Callable[[], None]) -> None:
        """Start the process and return when it, and what is left of it, has ended; NotStarted if it cannot now."""
        if self._request.refusal is not None:
            self._reply = Reply(error=self._request.refusal)
            slot_free()
            return
        with contextlib.ExitStack() as opened:
            try:
                remnants = Remnants(self._lock_descriptor)
                reply, output, pid = self._begin(opened)
            except OSError as error:
                text = f"{self._request.argv[0]}: {error.strerror}"
                if error.errno in SHORTAGES:
                    raise NotStarted(f"cannot start {text}") from error
                self._reply = Reply(error=TaskError("provisioning::attempt::cannot-start", text))
                self.ended_at = now()
                slot_free()
                return
            try:
                self._name_group(pid)
                self._wait(pid, output, signals)
            finally:
                self.ended_at = now()
                slot_free()
                cut_short = self._end_reason is not None and self._exit_code != 0
                self._leftovers = remnants.end(pid, self._request.grace_seconds, cut_short=cut_short)
            self._drain(output)
            self._log.finish()
            self._reply = read_reply(reply, self._request.result_bytes, self._request.result_schema)

    def _begin(self, opened: contextlib.ExitStack) -> tuple[int, int, int]:
        """Start the process: where it answers, what it writes, its pid. The two descriptors stay open with `opened`."""

        def kept(descriptor: int, until: contextlib.ExitStack = opened) -> int:
            until.callback(os.close, descriptor)
            return descriptor

        with contextlib.ExitStack() as passed:
            reply = kept(os.memfd_create("reply", os.MFD_CLOEXEC))
            output, output_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            kept(output)
            kept(output_end, passed)
            os.set_blocking(output_end, True)
            request = kept(os.memfd_create("request", os.MFD_CLOEXEC), passed)
            body = {"params": self._request.params, "env": self._request.task_environment}
            files.write_all(request, msgspec.json.encode(body))
            os.lseek(request, 0, os.SEEK_SET)
            nothing = kept(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), passed)
            # Out of the way of 3, 4 and 5: a descriptor duplicated onto itself would keep its close-on-exec flag.
            sources = [nothing, output_end, output_end, request, reply, self._lock_descriptor]
            moved = [kept(fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, 16), passed) for source in sources]
            pid = os.posix_spawn(
                self._request.argv[0],
                self._request.argv,
                self._request.environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(moved)],
                setpgroup=0,
                setsigmask=(),
                setsigdef=[s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)],
            )
        return reply, output, pid

    def _name_group(self, pid: int) -> None:
        """Say which group the attempt is; on a full disk recovery has to find it by the log alone."""
        if leader := identity(pid):
            with contextlib.suppress(SpoolUnusable):
                files.write_atomic(self._scratch.path / "group", encode(leader), durable=False, scratch=self._scratch)

    def _wait(self, pid: int, output: int, signals: Signals) -> None:
        """Copy output until the process has ended; end it at its deadline or when the worker is told to."""
        process = os.pidfd_open(pid)
        poll = select.poll()
        for descriptor in (process, output, signals.descriptor):
            poll.register(descriptor, select.POLLIN)
        deadline = None if self._request.timeout_seconds is None else boottime() + self._request.timeout_seconds
        kill_at: float | None = None
        while True:
            wake_at = min(at for at in (deadline, kill_at, boottime() + REAP_SECONDS) if at is not None)
            ready = dict(poll.poll(max(0.0, (wake_at - boottime()) * 1000)))
            reap(spare=pid)
            if output in ready and not self._copy(output):
                poll.unregister(output)
            if process in ready:
                break
            late = deadline is not None and boottime() >= deadline
            told = signals.descriptor in ready and signals.cancelled()
            if self._end_reason is None and (late or told):
                self._end_reason = Outcome.TIMED_OUT if late else Outcome.CANCELLED
                signal_group(pid, signal.SIGTERM)
                deadline, kill_at = None, boottime() + self._request.grace_seconds
            if kill_at is not None and boottime() >= kill_at:
                signal_group(pid, signal.SIGKILL)
                kill_at = None
        os.close(process)
        status = os.waitpid(pid, 0)[1]
        code = os.waitstatus_to_exitcode(status)
        self._exit_code, self._signal = (code, None) if code >= 0 else (None, -code)

    def _copy(self, output: int) -> bool:
        """Take what is in the pipe; False once nobody can write to it."""
        try:
            data = os.read(output, 1 << 16)
        except BlockingIOError:
            return True
        self._log.write(data)
        return bool(data)

    def _drain(self, output: int) -> None:
        """Take what is left in the pipe, without waiting for anyone who still has its other end."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(output, 1 << 16):
                self._log.write(data)

    def record(self) -> OutcomeRecord:
        """How the attempt ended."""
        outcome, error, result = self._verdict()
        workflow_id, task_id, number = self._request.key
        return OutcomeRecord(
            format=FORMAT,
            workflow_id=workflow_id,
            task_id=task_id,
            attempt=number,
            outcome=outcome,
            started_at=self.started_at,
            ended_at=self.ended_at,
            exit_code=self._exit_code,
            signal=self._signal,
            error=error,
            result=result,
            log_bytes=self._log.written,
            log_dropped_bytes=self._log.dropped,
            leftovers=self._leftovers,
        )

    def _verdict(self) -> tuple[Outcome, TaskError | None, Any]:
        succeeded = self._exit_code == 0 and self._reply.error is None
        if succeeded and self._reply.complete:  # even where a cancel or the deadline came as it ended
            return Outcome.SUCCEEDED, None, self._reply.result
        if self._end_reason is Outcome.TIMED_OUT:
            text = f"it ran longer than {self._request.timeout_seconds:g} s"
            return Outcome.TIMED_OUT, TaskError("provisioning::attempt::timeout", text), None
        if self._end_reason is Outcome.CANCELLED:
            return Outcome.CANCELLED, TaskError("provisioning::attempt::cancelled", "it was cancelled"), None
        if self._reply.error is not None:
            return Outcome.FAILED, self._reply.error, None
        if self._signal is not None:
            text = f"it was ended by signal {self._signal} ({signal.strsignal(self._signal) or 'no name'})"
            return Outcome.FAILED, TaskError("provisioning::attempt::killed", text), None
        text = f"it exited with {self._exit_code} and gave no result"
        return Outcome.FAILED, TaskError("provisioning::attempt::no-result", text, "see its log"), None
