"""The family of a worker: it adopts the orphans among its descendants, buries its dead and knows all who live."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator

from provisioning.processes import Sight, look_at, read_proc


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, instead of pid 1.

    prctl(2), PR_SET_CHILD_SUBREAPER; its number is from <linux/prctl.h>. Children do not inherit it.
    """
    import ctypes  # here: commands that start nothing do without it

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(36, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot become the parent of orphans")


def reap(spare: int = 0) -> bool:
    """Bury the children of this process that have ended, but the one to be spared; whether any other is left.

    Where none is, there is no descendant either: whose parent has ended is a child of this process.
    """
    try:
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid == spare:
                return True
            os.waitpid(ended.si_pid, 0)
    except ChildProcessError:
        return False
    return True


def descendants() -> Iterator[Sight]:
    """The living children of this process and their descendants, parents first.

    Of what forks meanwhile some may be missing.
    """
    ancestor = os.getpid()
    parents = deque([ancestor])
    while parents:
        parent = parents.popleft()
        for pid in _children(parent):
            sight = look_at(pid)
            if not sight or sight.parent not in (parent, ancestor):
                continue  # it has ended, and a stranger may have its pid
            parents.append(pid)
            yield sight


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # ended, or another user's by now
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, read_proc(f"{pid}/task/{thread}/children").split())
    return found
