"""Processes by an identity that a reused pid cannot borrow: whether one lives, and signals to it."""

from __future__ import annotations

import contextlib
import os
import signal

from provisioning.clock import boot_id
from provisioning.core.identifiers import Process


def starttime(pid: int) -> int | None:
    """When the process started; None where there is none, or only its unreaped rest."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def identity(pid: int) -> Process | None:
    """The identity of the process that has this pid now."""
    started = starttime(pid)
    return None if started is None else Process(boot_id(), pid, started)


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
