"""Ends what is left of an attempt: its process group, its orphans, then whoever still holds its log."""

from __future__ import annotations

import contextlib
import os
import select
import signal

from provisioning.clock import boottime
from provisioning.core.identifiers import Process
from provisioning.execution.family import descendants, reap
from provisioning.processes import Sight, group_members, identity, send_signal
from provisioning.storage.naming import StrPath

LOOKS = 50
"""So often at most is looked for what has forked meanwhile."""


def signal_group(group: int, number: signal.Signals) -> None:
    """Signal every process of the group; stopped ones are continued so that they take it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        os.killpg(group, signal.SIGCONT)


class Remnants:
    """What is left of an attempt when its process has ended, to the worker that ran it and adopts orphans.

    Part of the attempt is every descendant of the worker, which had no other when it began, but those in a session of
    their own of which none has the log: they were meant to stay.
    """

    def __init__(self, log: int) -> None:
        self._log = os.fstat(log)
        self._sessions = {os.getsid(0)}

    def end(self, group: int, grace_seconds: float, *, cut_short: bool) -> tuple[int, ...]:
        """End what is left of the attempt, in its process group or not; the pids of what had to be told.

        With `cut_short` the group has been told already, and what was meant to stay is ended as well. What cannot be
        signalled is left, as another user's.
        """
        self._group, self._cut_short = group, cut_short
        ended: dict[int, None] = {}
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
            if number is signal.SIGKILL:
                self._stop()
            # Told twice, a program may leave without cleaning up.
            knows = group if cut_short and number is signal.SIGTERM else 0
            found = self._find()
            told = [sight.process for sight in found if sight.group != knows and _tell(sight.process, number)]
            waited_for = [*told, *(sight.process for sight in found if sight.group == knows)]
            if not waited_for:
                break
            ended |= dict.fromkeys(process.pid for process in told)
            _wait_for(waited_for, grace_seconds)
        reap()
        return tuple(ended)

    def _find(self) -> list[Sight]:
        # A group of this number in another session is a stranger's.
        found = {sight.process: sight for sight in group_members(self._group) if sight.session == os.getsid(0)}
        if reap():
            begun = list(descendants())
            self._sessions.update(sight.session for sight in begun if _can_write(sight.process.pid, self._log))
            found |= {s.process: s for s in begun if self._cut_short or s.session in self._sessions}
        return list(found.values())

    def _stop(self) -> None:
        """Stop all of it, until a look finds no more: what is stopped does not fork while the rest is killed."""
        stopped: set[Process] = set()
        for _ in range(LOOKS):
            found = (sight.process for sight in self._find())
            new = [process for process in found if process not in stopped and _tell(process, signal.SIGSTOP)]
            if not new:
                return
            stopped.update(new)


def _tell(process: Process, number: signal.Signals) -> bool:
    """Signal that very process, and let it go on if it is stopped, so that it takes it; whether it could be told."""
    try:
        told = send_signal(process, number)
        if told and number is not signal.SIGSTOP:
            send_signal(process, signal.SIGCONT)
    except PermissionError:
        return False
    return told


def holders(log: StrPath) -> list[Process]:
    """The other processes that could write the attempt's log: what of it lives, in whatever session.

    Who only reads it, such as `tail`, is no part of the attempt.
    """
    try:
        wanted = os.stat(log)
    except FileNotFoundError:
        return []
    others = (pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if pid != os.getpid())
    return [process for pid in others if _can_write(pid, wanted) and (process := identity(pid))]


def _can_write(pid: int, wanted: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if not os.path.samestat(os.stat(f"/proc/{pid}/fd/{descriptor}"), wanted):
                    continue
                if os.lstat(f"/proc/{pid}/fd/{descriptor}").st_mode & 0o200:  # the link's mode is how it was opened
                    return True
    return False


def end_holders(log: StrPath, grace_seconds: float) -> tuple[int, ...]:
    """End every process that holds the log, however often it forks meanwhile; the pids that were told to end."""
    ended: dict[int, None] = {}
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
        found = [process for process in holders(log) if _tell(process, number)]
        if not found:
            break
        ended |= dict.fromkeys(process.pid for process in found)
        _wait_for(found, grace_seconds)
    return tuple(ended)


def _wait_for(processes: list[Process], patience_seconds: float) -> None:
    """Return when all have ended, or when the patience has."""
    deadline = boottime() + patience_seconds
    poll = select.poll()
    waiting = set()
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(process.pid)
            waiting.add(descriptor)
            poll.register(descriptor, select.POLLIN)
    while waiting and (left := deadline - boottime()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            poll.unregister(descriptor)
            os.close(descriptor)
            waiting.discard(descriptor)
    for descriptor in waiting:
        os.close(descriptor)
