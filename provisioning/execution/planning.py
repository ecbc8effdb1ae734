"""Asks a planning operation for its tasks: one short process, before the workflow that they belong to begins."""

from __future__ import annotations

import contextlib
import fcntl
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
from provisioning.execution.result import read_reply
from provisioning.storage import files

PATIENCE_SECONDS = 30.0
"""So long a planning operation may take, or what its own timeout says if that is less: who asks it waits."""
PLAN_BYTES = 64 << 20
"""Of what it returns."""
_TOLD_BYTES = 2000
"""Of what it printed, in the message about its failure."""


class PlanFailed(Invalid):
    """A planning operation that gave no plan."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__([Problem("bad-plan", message, hint)])
        self.message = message
        self.hint = hint


def ask_for_plan(config: Config, argv: tuple[str, ...], operation: Operation, params: Mapping[str, Any]) -> Any:
    """The list of tasks that the operation returns. PlanFailed where it fails, or takes too long."""
    settings = config.environment
    environment = {"PATH": "/nonexistent", "HOME": settings.home, "LANG": settings.lang, "NO_COLOR": "1"}
    body = {"params": params, "env": {"PATH": settings.path}}
    with contextlib.ExitStack() as opened:

        def kept(descriptor: int) -> int:
            opened.callback(os.close, descriptor)
            return descriptor

        request, reply, printed = (
            kept(os.memfd_create(name, os.MFD_CLOEXEC)) for name in ("request", "reply", "output")
        )
        files.write_all(request, msgspec.json.encode(body))
        os.lseek(request, 0, os.SEEK_SET)
        nothing = kept(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        sources = [nothing, printed, printed, request, reply]
        moved = [kept(fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, 16)) for source in sources]
        try:
            pid = os.posix_spawn(
                argv[0],
                argv,
                environment | dict(settings.variables),
                file_actions=[(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(moved)],
                setpgroup=0,
                setsigmask=(),
                setsigdef=[s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)],
            )
        except OSError as error:
            raise PlanFailed(f"{operation.name} cannot be started: {error.strerror}") from error
        if not _ended_in_time(pid, min(operation.timeout_seconds or PATIENCE_SECONDS, PATIENCE_SECONDS)):
            raise PlanFailed(f"{operation.name} took too long to plan", "a plan is made of data: ask nobody for it")
        answer = read_reply(reply, PLAN_BYTES, None)
        if answer.error is not None:
            raise PlanFailed(f"{answer.error.code}: {answer.error.msg}", answer.error.help)
        if not answer.complete:
            said = os.pread(printed, _TOLD_BYTES, 0).decode(errors="replace").strip()
            raise PlanFailed(f"{operation.name} gave no plan: {said or 'it said nothing'}")
        return answer.result


def _ended_in_time(pid: int, seconds: float) -> bool:
    """Whether the process has ended by itself; it has ended in any case."""
    process = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        deadline = boottime() + seconds
        while not (ended := poll.poll(max(0.0, deadline - boottime()) * 1000)) and boottime() < deadline:
            continue
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(process)
    return bool(ended)
