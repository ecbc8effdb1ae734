"""One real run below strace: the system calls that changed files, in order, and when each began and ended."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.waiting import wait_for

CALLS = (
    "openat,write,pwrite64,writev,lseek,ftruncate,fallocate,fsync,fdatasync,rename,renameat,renameat2,"
    "link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,dup2,dup3,execve"
)
ASIDE = {"execve", "dup2", "dup3"}
"""Calls that change no file: they say when an attempt's process began."""

_LINE = re.compile(r"(\d+) +[\d.]+ (.*)\Z")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)")
_DESCRIPTOR = re.compile(r"(-?\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def may_trace() -> bool:
    """Whether strace is there and the kernel lets it work."""
    strace = shutil.which("strace")
    if strace is None:
        return False
    return subprocess.run([strace, "-f", "-qq", "true"], capture_output=True, check=False).returncode == 0


class Call(NamedTuple):
    """A system call that did not fail."""

    pid: int
    name: str
    words: tuple[str, ...]
    """Its arguments as strace writes them; the last is what it returned."""

    def text(self, index: int) -> bytes:
        """The bytes of a string argument."""
        return b"".join(_bytes(found) for found in _STRING.findall(self.words[index]))

    def descriptor(self, index: int) -> tuple[int, str]:
        """The number of a descriptor and what it has open; the folder a path is relative to."""
        found = _DESCRIPTOR.match(self.words[index])
        assert found is not None, self
        number = -1 if found[1] == "AT_FDCWD" else int(found[1])
        return number, "" if found[3] else _bytes(found[2]).decode()

    def path(self, *indices: int) -> str:
        """The path that a name argument means, by the descriptor before it where there is one."""
        name = self.text(indices[-1]).decode()
        if len(indices) == 1 or name.startswith("/"):
            return name
        return f"{self.descriptor(indices[0])[1]}/{name}"

    @property
    def result(self) -> int:
        """What it returned."""
        return int(self.words[-1].partition("<")[0])


class Moment(NamedTuple):
    """A call begins or ends; most do both at one moment."""

    call: Call
    begins: bool
    ends: bool


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _call(pid: str, text: str) -> Call | None:
    found = _CALL.match(text)
    if found is None or int(found[3]) < 0:
        return None
    returned = text[found.start(3) :]
    return Call(int(pid), found[1], (*found[2].split(", "), returned))


def read_moments(trace: Path, root: Path) -> list[Moment]:
    """All calls in the trace that name something below `root`, and all that start a program, in their order."""
    marker = "".join(f"\\x{byte:02x}" for byte in f"{root}/".encode())
    moments: list[Moment | None] = []
    begun: dict[str, tuple[int, str]] = {}
    with open(trace, encoding="ascii") as lines:
        for line in lines:
            found = _LINE.match(line.rstrip("\n"))
            if found is None:
                continue
            pid, text = found[1], found[2]
            if text.endswith("<unfinished ...>"):
                begun[pid] = len(moments), text.removesuffix("<unfinished ...>").rstrip()
                moments.append(None)
                continue
            at = None
            if rest := _RESUMED.match(text):
                at, head = begun.pop(pid)
                text = head + text[rest.end() :]
            if marker not in text and not text.startswith("execve("):
                continue
            call = _call(pid, text)
            if call is None:
                continue
            if at is None:
                moments.append(Moment(call, begins=True, ends=True))
            else:
                moments[at] = Moment(call, begins=True, ends=False)
                moments.append(Moment(call, begins=False, ends=True))
    return [moment for moment in moments if moment is not None]


class Recorder:
    """A shell below strace that is told what to run, so that one trace has the calls of all processes in order."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.trace = folder / "trace"
        self.told = folder / "told"
        """What each command printed, `<number>`, and its exit code when it had ended, `<number>.ended`."""
        self.told.mkdir()
        self._count = 0
        strace = ["strace", "-f", "-y", "-xx", "-s", "16777216", "-ttt", "-qq", "--seccomp-bpf"]
        self._process = subprocess.Popen(
            [*strace, "-e", "signal=none", "-o", str(self.trace), "-e", f"trace={CALLS}", "sh"],
            stdin=subprocess.PIPE,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            text=True,
        )

    def begin(self, *command: str) -> int:
        """Start the command; its number."""
        self._count += 1
        told = f"{self.told}/{self._count}"
        assert all(re.fullmatch(r"[\w./=:-]+", word) for word in command), "no quoting is done"
        assert self._process.stdin is not None
        line = f"{{ {' '.join(command)} >{told} 2>{told}.errors </dev/null; echo $? >{told}.ended; }} &\n"
        self._process.stdin.write(line)
        self._process.stdin.flush()
        return self._count

    def wait(self, number: int, seconds: float = 60.0) -> str:
        """What the command printed; it must have succeeded."""
        ended = self.told / f"{number}.ended"
        wait_for(lambda: ended.exists() and ended.read_text(), seconds, f"command {number}")
        errors = (self.told / f"{number}.errors").read_text()
        assert ended.read_text() in ("0\n", "1\n"), errors
        return (self.told / str(number)).read_text().strip()

    def run(self, *command: str) -> str:
        """Start the command and wait for it."""
        return self.wait(self.begin(*command))

    def close(self) -> None:
        """End the shell, which waits for nobody, and see strace end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait()


def attempts_begun(moments: Sequence[Moment]) -> Iterator[tuple[int, str]]:
    """For each attempt: the index of the moment in which it began, and the path of its log.

    It begins with its process, or, where that waited for it, when the log of that gets its name.
    """
    logs: dict[int, str] = {}
    for index, (call, begins, ends) in enumerate(moments):
        if call.name.startswith("dup"):
            path = call.descriptor(0)[1]
            if path.endswith(".log"):
                logs[call.pid] = path
        elif call.name == "execve" and begins and call.pid in logs:
            log = logs.pop(call.pid)
            if Path(log).parent.name == "logs":
                yield index, log
        elif call.name == "renameat2" and ends and Path(log := call.path(2, 3)).parent.name == "logs":
            yield index, log
