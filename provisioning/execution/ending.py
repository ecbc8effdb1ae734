"""Ends what is left of an attempt: its process group, then whoever still holds its log."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path

from provisioning.clock import boottime
from provisioning.core.identifiers import Process
from provisioning.processes import identity, send_signal


def group_exists(group: int) -> bool:
    """Whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def signal_group(group: int, number: signal.Signals) -> None:
    """Signal every process of the group; stopped ones are continued so that they take it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        os.killpg(group, signal.SIGCONT)


def end_group(group: int, grace_seconds: float) -> tuple[int, ...]:
    """End the processes of the group, whose leader is gone; their pids."""
    members = _group_members(group)
    for number in (signal.SIGTERM, signal.SIGKILL):
        # While the group has members no new process gets its number: a leader that lives is a stranger's.
        if not group_exists(group) or identity(group) is not None:
            break
        signal_group(group, number)
        _wait_for(members, grace_seconds)
    return tuple(process.pid for process in members)


def _group_members(group: int) -> list[Process]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(int(name)) == group and (process := identity(int(name))):
                found.append(process)
    return found


def holders(log: Path) -> list[Process]:
    """The other processes that could write the attempt's log: what of it lives, in whatever session.

    Who only reads it, such as `tail`, is no part of the attempt.
    """
    try:
        wanted = os.stat(log)
    except FileNotFoundError:
        return []
    others = (name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid())
    return [process for name in others if _can_write(name, wanted) and (process := identity(int(name)))]


def _can_write(pid: str, wanted: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if not os.path.samestat(os.stat(f"/proc/{pid}/fd/{descriptor}"), wanted):
                    continue
                if os.lstat(f"/proc/{pid}/fd/{descriptor}").st_mode & 0o200:  # the link's mode is how it was opened
                    return True
    return False


def end_holders(log: Path, grace_seconds: float) -> tuple[int, ...]:
    """End every process that holds the log, however often it forks meanwhile; the pids that were told to end."""
    ended: dict[int, None] = {}
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
        found = holders(log)
        if not found:
            break
        for process in found:
            ended[process.pid] = None
            send_signal(process, number)
            send_signal(process, signal.SIGCONT)
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
