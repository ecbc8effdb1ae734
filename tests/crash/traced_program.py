"""`provisioning`, with strace on itself and on workers of its pool: a program of its own, started by the sweeps.

    python traced_program.py PYTHON -m provisioning ARGUMENTS…

In the environment, TRACED_PROGRAM is the log for the program's own process, which is not traced without it, and
PROGRAM_OPTIONS are strace's, one a line. TRACED_WORKERS is `every`, `none` or the number of one of them, the first
being 1; WORKER_OPTIONS are strace's; the log of worker n is `worker.<n>` in the folder TRACE_LOGS.

The program is traced from when all is imported, as how many files an import opens depends on what is cached; a worker
before it does anything. The processes that they start are not traced.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import pkgutil
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import provisioning
from provisioning import __main__ as program
from provisioning.execution import pool
from provisioning.execution.worker import work

PR_SET_PTRACER, PTRACER_ANY = 0x59616D61, ctypes.c_ulong(-1)
"""What lets a child trace its parent where the kernel allows only the other way."""
PRELOAD = "provisioning.execution.preload"
"""The one module whose import does something, which is the forkserver's to do."""
LATE = ("filelock", "tomllib", "multiprocessing.popen_forkserver", "multiprocessing.resource_tracker")
"""What modules import in their functions."""


def traced_work(connection: Connection, scratch_path: str) -> None:
    """A worker's life, below strace where it is this one's turn."""
    logs = Path(os.environ["TRACE_LOGS"])
    number = 1
    while not _is_ours(logs / f"worker.{number}"):
        number += 1
    if os.environ["TRACED_WORKERS"] in ("every", str(number)):
        _have_traced(logs / f"worker.{number}", os.environ["WORKER_OPTIONS"])
    work(connection, scratch_path)


def _is_ours(log: Path) -> bool:
    """Whether no other worker has that number."""
    try:
        os.close(os.open(log, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    return True


def _have_traced(log: Path, options: str) -> None:
    """Start strace on this process and return when it sees every call; till then nothing that it counts is called."""
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, PTRACER_ANY, 0, 0, 0)
    descriptor = os.open(log, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    command = ["strace", "-p", str(os.getpid()), "-o", str(log), *options.split("\n")]
    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    while not os.fstat(descriptor).st_size:  # it writes to its log what it sees
        os.getppid()
        if tracer.poll() is not None:
            raise RuntimeError("strace could not attach")
    os.close(descriptor)


def _import_all() -> None:
    """Import what any command may import later."""
    for module in pkgutil.walk_packages(provisioning.__path__, "provisioning."):
        if module.name != PRELOAD:
            importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)


if __name__ == "__main__":
    pool.work = traced_work  # type: ignore[attr-defined]
    sys.argv = sys.argv[sys.argv.index("provisioning") :]
    if "TRACED_PROGRAM" in os.environ:
        _import_all()
        _have_traced(Path(os.environ["TRACED_PROGRAM"]), os.environ["PROGRAM_OPTIONS"])
    program.main()
