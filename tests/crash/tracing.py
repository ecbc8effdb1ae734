"""What a process does to a spool, call by call, by strace; and the same again with one call disturbed."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.installation import Installation
from tests.waiting import wait_for

CALLS = (
    "openat,creat,write,pwrite64,writev,rename,renameat,renameat2,link,linkat,symlink,unlink,unlinkat,mkdir,mkdirat,"
    "rmdir,fsync,fdatasync,ftruncate,truncate,fallocate,chmod,fchmod,flock"
).split(",")
"""All by which a file comes to be, changes, goes, becomes durable or is locked."""
DRIVER = Path(__file__).with_name("traced_program.py")

_LINE = re.compile(r"(?P<name>[a-z0-9]+)\((?P<rest>.*)")
_OPENED = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")
_DESCRIPTOR_ONLY = {"write", "pwrite64", "writev"}
"""Their buffer may name the spool without touching it: only the descriptor counts."""


class Call(NamedTuple):
    """A system call of one process: the `number`-th of its name, as strace counts, and what it was."""

    name: str
    number: int
    text: str

    @property
    def injected(self) -> bool:
        """Whether strace had it fail or end the process."""
        return "(INJECTED)" in self.text


@functools.cache
def may_trace() -> bool:
    """Whether strace is there and the kernel lets it work."""
    strace = shutil.which("strace")
    if strace is None:
        return False
    return subprocess.run([strace, "-qq", "true"], capture_output=True, check=False).returncode == 0


def calls_of(log: Path) -> Iterator[Call]:
    """Every call in a log of one process."""
    counts: Counter[str] = Counter()
    for line in log.read_text(errors="replace").splitlines():
        if (match := _LINE.match(line)) and match["name"] in CALLS:
            counts[match["name"]] += 1
            yield Call(match["name"], counts[match["name"]], line)


def changes(call: Call, spool: Path) -> bool:
    """Whether the call changes, syncs or locks something of the spool."""
    where = call.text.split(",")[0] if call.name in _DESCRIPTOR_ONLY else call.text
    return f"{spool}/" in where and (call.name != "openat" or _OPENED.search(call.text) is not None)


def likened(call: Call, log: Path) -> Call:
    """The call of another run that is most like this one: the last of its name that says the same but for its numbers.

    How many calls there are depends on how often a process looks; where none is like it, it is the last of its name.
    """
    same = [other for other in calls_of(log) if other.name == call.name] if log.exists() else []
    like = [other for other in same if _plain(other) == _plain(call)]
    return [call, *same[-1:], *like[-1:]][-1]


def _plain(call: Call) -> str:
    """What the call says, without ids, digests, descriptors and the folder of its test."""
    return re.sub(r"[0-9a-z]{26,64}|/tmp/[^ \"<>]*/spool/|\d+", "N", call.text.partition(" = ")[0])


def was_killed(log: Path) -> bool:
    """Whether strace saw the process end by SIGKILL."""
    return log.exists() and "+++ killed by SIGKILL +++" in log.read_text(errors="replace")


def injection(call: Call, effect: str, *, times: str = "") -> tuple[str, ...]:
    """The strace option that has `effect` at this call; `times` is `+` for this one and all after it of its name."""
    return ("-e", f"inject={call.name}:{effect}:when={call.number}{times}")


class Tracing(NamedTuple):
    """Which processes of an orchestrator are traced, and what is done to them."""

    orchestrator: tuple[str, ...] | None = None
    """What strace is told for the orchestrator's own process; None leaves it untraced."""
    workers: tuple[str, ...] = ()
    traced_workers: str = "none"
    """`every`, `none`, or the number of the one worker that is traced, the first being 1."""


def traced(log: Path, *options: str) -> tuple[list[str], dict[str, str]]:
    """The command before `PYTHON -m provisioning …` that has its process traced, and the environment it needs."""
    environment = {
        "TRACED_PROGRAM": str(log),
        "PROGRAM_OPTIONS": _options(options),
        "PYTHONDONTWRITEBYTECODE": "1",  # the interpreter's caches appear by rename too
    }
    return [sys.executable, str(DRIVER)], environment


def start_traced(site: Installation, tracing: Tracing, *arguments: str) -> subprocess.Popen[bytes]:
    """Start `provisioning orchestrator run` with these arguments below strace; logs are in `logs_of(site)`."""
    logs = logs_of(site)
    logs.mkdir(exist_ok=True)
    log = logs / "orchestrator"
    log.unlink(missing_ok=True)
    before, environment = traced(log, *(tracing.orchestrator or ()))
    if tracing.orchestrator is None:
        del environment["TRACED_PROGRAM"]
    environment |= {
        "TRACE_LOGS": str(logs),
        "WORKER_OPTIONS": _options(tracing.workers),
        "TRACED_WORKERS": tracing.traced_workers,
    }
    return site.start("orchestrator", "run", *arguments, before=before, environment=environment)


def ended(site: Installation, process: subprocess.Popen[bytes]) -> int:
    """The exit code of a traced orchestrator, when it has ended and all that strace saw of it is in its log."""
    code = process.wait(60)
    log = logs_of(site) / "orchestrator"
    if log.exists():
        wait_for(lambda: "\n+++ " in log.read_text(errors="replace"), what="the end of strace")
    return code


def logs_of(site: Installation) -> Path:
    """Where strace writes: `orchestrator`, `worker.1`, `worker.2` and so on."""
    return site.root / "traced"


def _options(more: Sequence[str]) -> str:
    """What strace is told, one a line; the end of the process is in its log."""
    return "\n".join(["--quiet=attach,personality", "-y", "-e", f"trace={','.join(CALLS)},getppid", *more])


def let_workers_be(site: Installation) -> None:
    """End the straces on workers: what they made fail works from then on."""
    for left in left_of(site):
        pid, _, command = left.partition(": ")
        if command.startswith("strace -p "):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)
    wait_for(lambda: not any(": strace -p " in left for left in left_of(site)), what="the end of strace")


def left_of(site: Installation) -> list[str]:
    """The processes that still have to do with the spool: by their command line, environment or open files."""
    wanted = str(site.root)
    return [
        f"{pid.name}: {command}"
        for pid in Path("/proc").iterdir()
        if pid.name.isdigit() and (command := _command_of(pid, wanted))
    ]


def _command_of(pid: Path, wanted: str) -> str:
    """The command of a process that has to do with the folder `wanted`; nothing for any other, and for this one."""
    if int(pid.name) == os.getpid():
        return ""
    try:
        command = (pid / "cmdline").read_bytes()
        said = command + (pid / "environ").read_bytes()
        opened = [os.readlink(descriptor) for descriptor in (pid / "fd").iterdir()]
    except OSError:
        return ""  # it has ended meanwhile, or is nobody's that we started
    if wanted.encode() + b"/" in said or any(path.startswith(wanted + "/") for path in opened):
        return command.replace(b"\0", b" ").decode(errors="replace") or "(ending)"
    return ""
