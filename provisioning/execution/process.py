"""The process of an attempt: started, it parses its entry and waits for the request; fed, it does the operation once.

It may be started before its task is known. Descriptor 3 is a pipe that ends with the request: a process that is never
fed, or whose feeder dies half-way, reads no request, does nothing and ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
from collections.abc import Mapping

from provisioning.config import Environment

UNPRIVILEGED_PATH = "/nonexistent"
"""PATH of a Nushell process until its entry sets the real one: off a terminal it would run `tput` from it."""
_FIRST_FREE = 6
"""The descriptors below it are the process's own: input, output, errors, request, answer, log."""
_DEFAULTS = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]


def process_environment(settings: Environment) -> dict[str, str]:
    """The whole environment of the process of an attempt, before its entry adds what belongs to the task."""
    made = {"PATH": UNPRIVILEGED_PATH, "HOME": settings.home, "LANG": settings.lang, "NO_COLOR": "1"}
    if settings.tz:
        made["TZ"] = settings.tz
    return made | dict(settings.variables)


class Process:
    """A process of Nushell, its answer, and its output as far as it was not read yet."""

    def __init__(
        self, argv: tuple[str, ...], environment: Mapping[str, str], log: int, held: int | None = None
    ) -> None:
        """Start it, in a group of its own, with the log as its descriptor 5, and what holds its targets as its 6.

        OSError where it cannot be started.
        """
        self._unsent = memoryview(b"")
        self.pid = 0
        ours: list[int] = []
        passed: list[int] = []
        try:
            self.reply = _out_of_the_way(os.memfd_create("reply", os.MFD_CLOEXEC), ours)
            self.output, output_end = (_out_of_the_way(each, ours) for each in os.pipe2(os.O_CLOEXEC))
            source, self.request = (_out_of_the_way(each, ours) for each in os.pipe2(os.O_CLOEXEC))
            nothing = _out_of_the_way(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), ours)
            passed = [nothing, output_end, source]
            if log < _FIRST_FREE:
                log = fcntl.fcntl(log, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
                passed.append(log)
            os.set_blocking(self.output, False)
            os.set_blocking(self.request, False)
            targets = [nothing, output_end, output_end, source, self.reply, log]
            if held is not None:
                targets.append(fcntl.fcntl(held, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE + 10))
                passed.append(targets[-1])
            self.pid = os.posix_spawn(
                argv[0],
                argv,
                environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, each, place) for place, each in enumerate(targets)],
                setpgroup=0,
                setsigmask=(),
                setsigdef=_DEFAULTS,
            )
            self.exit = os.pidfd_open(self.pid)
        except BaseException:
            for each in {*ours, *passed}:
                os.close(each)
            if self.pid:  # it reads no request, and ends
                os.waitpid(self.pid, 0)
            raise
        for each in passed:
            os.close(each)

    def feed(self, request: bytes) -> bool:
        """Give it its request; False where it has ended and will never read it. What it cannot take yet, `send` sends.

        Nobody else has the pipe's other end: one that takes a byte was there to do the operation.
        """
        self._unsent = memoryview(request)
        return self.send()

    def send(self) -> bool:
        """Send more of the request, and its end when all is sent; False where there is nobody to read it."""
        try:
            with contextlib.suppress(BlockingIOError):
                while self._unsent:
                    self._unsent = self._unsent[os.write(self.request, self._unsent) :]
        except BrokenPipeError:
            self._end_request()
            return False
        if not self._unsent:
            self._end_request()
        return True

    def _end_request(self) -> None:
        if self.request >= 0:
            os.close(self.request)
            self.request = -1

    def ended(self) -> bool:
        """Whether it has ended, buried or not."""
        return bool(select.select([self.exit], [], [], 0)[0])

    def abandon(self) -> None:
        """End and bury it: it was never fed, or has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.exit, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # buried with the orphans
            os.waitpid(self.pid, 0)
        self.close()

    def close(self) -> None:
        """Let go of it."""
        self._end_request()
        for each in (self.exit, self.output, self.reply):
            os.close(each)


def _out_of_the_way(descriptor: int, opened: list[int]) -> int:
    """The descriptor at a number that the process does not use: duplicated onto itself, it would be closed there."""
    if descriptor < _FIRST_FREE:
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
        os.close(descriptor)
        descriptor = moved
    opened.append(descriptor)
    return descriptor
