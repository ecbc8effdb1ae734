"""Asks a planning operation for its tasks: one short process, before the workflow that they belong to begins."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Mapping
from typing import Any

import msgspec

from provisioning.clock import boottime
from provisioning.config import Config
from provisioning.core.catalogue import Operation
from provisioning.errors import Invalid, Problem
from provisioning.execution.process import Process, process_environment
from provisioning.execution.result import read_reply

PATIENCE_SECONDS = 30.0
"""So long a planning operation may take, or what its own timeout says if that is less: who asks it waits."""
PLAN_BYTES = 64 << 20
"""Of what it returns."""
_TOLD_BYTES = 2000
"""Of what it printed, in the message about its failure."""


class PlanFailed(Invalid):
    """A planning operation that gave no plan."""

    def __init__(self, message: str, hint: str = "", said: str = "") -> None:
        super().__init__([Problem("bad-plan", message, hint)])
        self.message = message
        self.hint = hint
        self.said = said
        """The code of the operation's own error."""


def ask_for_plan(
    config: Config, argv: tuple[str, ...], operation: Operation, params: Mapping[str, Any], variables: Mapping[str, str]
) -> Any:
    """The list of tasks that the operation returns. PlanFailed where it fails, or takes too long."""
    request = msgspec.json.encode({"params": params, "env": {"PATH": config.environment.path, **variables}})
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        process = Process(argv, process_environment(config.environment), nothing)
    except OSError as error:
        raise PlanFailed(f"{operation.name} cannot be started: {error.strerror}") from error
    finally:
        os.close(nothing)
    try:
        process.feed(request)
        said = _see_through(process, min(operation.timeout_seconds or PATIENCE_SECONDS, PATIENCE_SECONDS))
        if said is None:
            raise PlanFailed(f"{operation.name} took too long to plan", "a plan is made of data: ask nobody for it")
        answer = read_reply(process.reply, PLAN_BYTES, None)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.abandon()
    if answer.error is not None:
        raise PlanFailed(f"{answer.error.code}: {answer.error.msg}", answer.error.help, answer.error.code)
    if not answer.complete:
        text = said[:_TOLD_BYTES].decode(errors="replace").strip()
        raise PlanFailed(f"{operation.name} gave no plan: {text or 'it said nothing'}")
    return answer.result


def _see_through(process: Process, seconds: float) -> bytes | None:
    """What the process printed first, when it has ended by itself; None where it has not within the time."""
    poll = select.poll()
    for descriptor in (process.exit, process.output):
        poll.register(descriptor, select.POLLIN)
    sending = process.request
    if sending >= 0:
        poll.register(sending, select.POLLOUT)
    deadline, said = boottime() + seconds, b""
    while boottime() < deadline:
        ready = dict(poll.poll(max(0.0, deadline - boottime()) * 1000))
        if sending in ready:
            process.send()
            if process.request < 0:
                poll.unregister(sending)
        if process.output in ready:
            data = os.read(process.output, 1 << 16)
            if not data:
                poll.unregister(process.output)
            elif len(said) < _TOLD_BYTES:
                said += data
        elif process.exit in ready:
            return said
    return None
