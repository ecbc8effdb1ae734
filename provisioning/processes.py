"""Processes by an identity that a reused pid cannot borrow: whether one lives, its family, and signals to it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from collections.abc import Collection, Iterator
from typing import NamedTuple

from provisioning.clock import boot_id
from provisioning.core.identifiers import Process


class Sight(NamedTuple):
    """What /proc tells of a living process at one instant."""

    process: Process
    parent: int
    group: int
    session: int


def look_at(pid: int) -> Sight | None:
    """The process that has this pid now; None where there is none, or only its unreaped rest."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return Sight(Process(boot_id(), pid, int(fields[19])), int(fields[1]), int(fields[2]), int(fields[3]))


def starttime(pid: int) -> int | None:
    """When the process started; None where there is none, or only its unreaped rest."""
    return sight.process.starttime if (sight := look_at(pid)) else None


def identity(pid: int) -> Process | None:
    """The identity of the process that has this pid now."""
    return sight.process if (sight := look_at(pid)) else None


def own_identity() -> Process:
    """The identity of this process."""
    found = identity(os.getpid())
    assert found is not None
    return found


def is_alive(process: Process) -> bool:
    """Whether that very process still runs."""
    return process.boot_id == boot_id() and starttime(process.pid) == process.starttime


def send_signal(process: Process, number: signal.Signals) -> bool:
    """Signal that very process and no other; whether it was there."""
    if process.boot_id != boot_id():
        return False
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process.pid)
        try:
            if starttime(process.pid) != process.starttime:
                return False
            signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)
        return True
    return False


def group_members(group: int) -> list[Sight]:
    """The living processes of a process group: an unreaped one answers to `killpg` for ever, and is none."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return []
    except PermissionError:
        pass
    seen = map(look_at, map(int, filter(str.isdigit, os.listdir("/proc"))))
    return [sight for sight in seen if sight and sight.group == group]


# The family of this process


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, instead of pid 1.

    prctl(2), PR_SET_CHILD_SUBREAPER; its number is from <linux/prctl.h>. Children do not inherit it.
    """
    import ctypes  # here: who only looks must start fast

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(36, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot become the parent of orphans")


def reap(spare: int = 0) -> bool:
    """Bury the children of this process that have ended, but the one to be spared; whether any other is left."""
    try:
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid == spare:
                return True
            os.waitpid(ended.si_pid, 0)
    except ChildProcessError:
        return False
    return True


def descendants(since: int = 0, spare: Collection[Process] = ()) -> Iterator[Sight]:
    """The living children of this process and their descendants, parents first.

    Those that started before `since`, in clock ticks from the boot, and those to be spared are left out, with all that
    is below them. Of what forks meanwhile some may be missing.
    """
    ancestor = os.getpid()
    parents = deque([ancestor])
    while parents:
        parent = parents.popleft()
        for pid in _children(parent):
            sight = look_at(pid)
            if not sight or sight.parent not in (parent, ancestor):
                continue  # it has ended, and a stranger may have its pid
            if sight.process.starttime >= since and sight.process not in spare:
                parents.append(pid)
                yield sight


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    return found
