"""An attempt while it runs: its request, its output into the log, its deadline, what is left of it, its verdict."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

import msgspec

from provisioning.clock import boottime, now
from provisioning.core import identifiers
from provisioning.core.redaction import Redactor
from provisioning.core.states import Outcome
from provisioning.core.workflow import FORMAT, OutcomeRecord, TaskError
from provisioning.execution.credentials import Unusable, of_settings, resolve
from provisioning.execution.ending import Remnants, signal_group
from provisioning.execution.executor import AttemptRequest
from provisioning.execution.family import reap
from provisioning.execution.process import Process
from provisioning.execution.result import Reply, read_reply
from provisioning.processes import identity
from provisioning.storage.logs import AttemptLog

REAP_SECONDS = 10.0
"""Between two looks for orphans of the running process that have ended: they are the worker's to bury."""


class Signals(Protocol):
    """What the worker hears while an attempt runs."""

    descriptor: int
    lag_seconds: float
    """So long after its process has ended the word may still come that has ended it, where whoever ends the attempt
    tells its processes one by one; 0 where the worker is told, and nobody else."""

    def cancelled(self) -> bool:
        """Whether the attempt is to be ended."""


class Running:
    """One attempt, whose log is locked: to begin, wait for, end, and close."""

    def __init__(self, request: AttemptRequest, process: Process | None, log: int) -> None:
        """`process` is one that was started before and waits, with that log."""
        self.request = request
        self._process = process
        self._lock_descriptor = log
        self.targets: int | None = None
        """A descriptor that holds its targets and groups, for the process to inherit."""
        self.refusal = request.refusal
        """Why the operation is not called."""
        try:
            self._params, secrets = resolve(request.params, request.credentials, request.credentials_folder)
        except Unusable as error:
            self._params, secrets, self.refusal = {}, {}, error.error
        hidden = of_settings(request.params, request.task_environment, request.credentials_folder)
        self._redactor = Redactor(secrets | hidden)
        self._log = AttemptLog(log, request.log_bytes, self._redactor)
        self._begun = False
        self._end_reason: Outcome | None = None
        self._leftovers: tuple[int, ...] = ()
        self._exit_code: int | None = None
        self._signal: int | None = None
        self._reply = Reply()
        self.started_at: datetime = now()
        self.ended_at: datetime = self.started_at

    def begin(self) -> None:
        """Give the process its request, and start one first where none waits. OSError where none can be started."""
        self._remnants = Remnants(self._lock_descriptor)
        request = msgspec.json.encode({"params": self._params, "env": self.request.task_environment})
        if self._process is not None and not self._process.feed(request):
            self._process.abandon()
            self._process = None
        if self._process is None:
            self._process = Process(self.request.argv, self.request.environment, self._lock_descriptor, self.targets)
            self._process.feed(request)
        self._begun = True
        self._began_at = boottime()

    def refuse(self, error: TaskError) -> None:
        """It has ended before it began, of this error."""
        self._reply = Reply(error=error)
        self.ended_at = now()

    def leader(self) -> identifiers.Process | None:
        """The leader of its process group, while it lives."""
        return identity(self._process.pid) if self._process else None

    def wait(self, signals: Signals) -> None:
        """Copy output until the process has ended; end it at its deadline or when the worker is told to."""
        process = self._process
        assert process is not None
        poll = select.poll()
        for descriptor in (process.exit, process.output, signals.descriptor):
            poll.register(descriptor, select.POLLIN)
        if process.request >= 0:
            poll.register(process.request, select.POLLOUT)
        limit = self.request.timeout_seconds
        deadline = None if limit is None else self._began_at + limit
        kill_at: float | None = None
        while True:
            this = boottime()
            wake_at = min(at for at in (deadline, kill_at, this + REAP_SECONDS) if at is not None)
            ready = dict(poll.poll(max(0.0, (wake_at - this) * 1000)))
            if process.request in ready:
                self._send_more(process, poll)
            if process.output in ready and not self._copy(process.output):
                poll.unregister(process.output)
            if process.exit in ready:
                break
            reap(spare=process.pid)
            late = deadline is not None and boottime() >= deadline
            told = signals.descriptor in ready and signals.cancelled()
            if self._end_reason is None and (late or told):
                self._end_reason = Outcome.TIMED_OUT if late else Outcome.CANCELLED
                signal_group(process.pid, signal.SIGTERM)
                deadline, kill_at = None, boottime() + self.request.grace_seconds
            if kill_at is not None and boottime() >= kill_at:
                signal_group(process.pid, signal.SIGKILL)
                kill_at = None
        status = os.waitpid(process.pid, 0)[1]
        code = os.waitstatus_to_exitcode(status)
        self._exit_code, self._signal = (code, None) if code >= 0 else (None, -code)
        if self._end_reason is None and code != 0 and signals.lag_seconds:
            select.select([signals.descriptor], [], [], signals.lag_seconds)
            self._end_reason = Outcome.CANCELLED if signals.cancelled() else None

    @staticmethod
    def _send_more(process: Process, poll: select.poll) -> None:
        descriptor = process.request
        process.send()
        if process.request < 0:
            poll.unregister(descriptor)

    def end(self, slot_free: Callable[[], None]) -> None:
        """Say that the slot is free, end what is left of the attempt, and take what it said last."""
        process = self._process
        assert process is not None
        self.ended_at = now()
        slot_free()
        cut_short = self._end_reason is not None and self._exit_code != 0
        self._leftovers = self._remnants.end(process.pid, self.request.grace_seconds, cut_short=cut_short)
        self._drain(process.output)
        self._log.finish()
        self._reply = read_reply(process.reply, self.request.result_bytes, self.request.result_schema)

    def close(self) -> None:
        """Let go of the process; one that was never given its request ends."""
        if self._process is None:
            return
        if self._begun:
            self._process.close()
        else:
            self._process.abandon()

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
        if error is not None:
            said = {name: self._redactor.text(getattr(error, name)) for name in ("code", "msg", "help")}
            error = msgspec.structs.replace(error, **said)
        workflow_id, task_id, number = self.request.key
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
            result=self._redactor.value(result),
            log_bytes=self._log.written,
            log_dropped_bytes=self._log.dropped,
            leftovers=self._leftovers,
        )

    def _verdict(self) -> tuple[Outcome, TaskError | None, Any]:
        succeeded = self._exit_code == 0 and self._reply.error is None
        if succeeded and self._reply.complete:  # even where a cancel or the deadline came as it ended
            return Outcome.SUCCEEDED, None, self._reply.result
        if self._end_reason is Outcome.TIMED_OUT:
            text = f"it ran longer than {self.request.timeout_seconds:g} s"
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
