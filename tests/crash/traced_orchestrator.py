"""`provisioning`, with strace on workers of its pool: a program of its own, started by the sweeps.

    python traced_orchestrator.py PYTHON -m provisioning ARGUMENTS…

In the environment, TRACED_WORKERS is `every`, `none` or the number of one of them, the first being 1; TRACE_OPTIONS are
strace's, one a line; the log of worker n is `worker.<n>` in the folder TRACE_LOGS. A worker is traced before it does
anything, and the processes that it starts are not.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from provisioning import __main__ as program
from provisioning.execution import pool
from provisioning.execution.worker import work

PR_SET_PTRACER, PTRACER_ANY = 0x59616D61, ctypes.c_ulong(-1)
"""What lets a child trace its parent where the kernel allows only the other way."""


def traced_work(connection: Connection, scratch_path: str) -> None:
    """A worker's life, below strace where it is this one's turn."""
    logs = Path(os.environ["TRACE_LOGS"])
    number = 1
    while not _is_ours(logs / f"worker.{number}"):
        number += 1
    if os.environ["TRACED_WORKERS"] in ("every", str(number)):
        _have_traced(logs / f"worker.{number}")
    work(connection, scratch_path)


def _is_ours(log: Path) -> bool:
    """Whether no other worker has that number."""
    try:
        os.close(os.open(log, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    return True


def _have_traced(log: Path) -> None:
    """Start strace on this process and return when it sees every call; till then nothing that it counts is called."""
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, PTRACER_ANY, 0, 0, 0)
    options = os.environ["TRACE_OPTIONS"].split("\n")
    descriptor = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    tracer = subprocess.Popen(
        ["strace", "-p", str(os.getpid()), "-o", str(log), *options], stdin=subprocess.DEVNULL, start_new_session=True
    )
    while not os.fstat(descriptor).st_size:  # it writes to its log what it sees
        os.getppid()
        if tracer.poll() is not None:
            raise RuntimeError("strace could not attach to a worker")
    os.close(descriptor)


if __name__ == "__main__":
    pool.work = traced_work  # type: ignore[attr-defined]
    sys.argv = sys.argv[sys.argv.index("provisioning") :]
    program.main()
