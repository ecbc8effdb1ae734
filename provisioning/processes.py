"""Processes by an identity that a reused pid cannot borrow: whether one lives, its family, and signals to it."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NamedTuple

from provisioning.clock import boot_id
from provisioning.core.identifiers import Process, Resident


class Sight(NamedTuple):
    """What /proc tells of a living process at one instant."""

    process: Process
    parent: int
    group: int
    session: int


def read_proc(name: str) -> bytes:
    """The whole of a file of /proc. Looked at for each attempt: a buffered file takes three times as long."""
    descriptor = os.open(f"/proc/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while more := os.read(descriptor, 4096):
            data += more
        return data
    finally:
        os.close(descriptor)


def look_at(pid: int) -> Sight | None:
    """The process that has this pid now; None where there is none, or only its unreaped rest.

    One that may not be seen, where /proc is mounted with `hidepid`, is another user's, and none to us.
    """
    try:
        fields = read_proc(f"{pid}/stat").rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
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


def resident(folder: os.stat_result) -> Resident:
    """This process, at work in that folder."""
    me = own_identity()
    return Resident(me.boot_id, me.pid, me.starttime, _folder(folder))


def lives_in(said: Resident, folder: os.stat_result) -> bool:
    """Whether what a process said of itself was said in that very folder, and not in one that this is a copy of."""
    return said.folder in ("", _folder(folder))


def _folder(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}"


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
