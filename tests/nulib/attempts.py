"""Runs operations of nulib the way an attempt does: one fresh nu, request on 3, result on 4, log inherited."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from provisioning.core.catalogue import Catalogue
from provisioning.execution.entries import entry_source
from provisioning.execution.nushell import Nushell, read_catalogue, sweep
from tests.answers import answer_in

NULIB = Path(__file__).parents[2] / "nulib"
NOBODY = 65534
SERVER_UID = 1879048192


def find_nu() -> str:
    """The nu of PROVISIONING_NU, of PATH, or the one installed beside this Python."""
    beside = str(Path(sys.executable).with_name("nu"))
    found = os.environ.get("PROVISIONING_NU") or shutil.which("nu") or shutil.which(beside)
    if not found:
        pytest.fail("no nu: set PROVISIONING_NU to a Nushell of version 0.114.1 or later")
    return found


def may_execute(program: str, user: int) -> bool:
    """Whether this user reaches a program: its folders may be closed to others."""
    try:
        return subprocess.run([program, "--version"], user=user, capture_output=True, check=False).returncode == 0
    except PermissionError:
        return False


@cache
def why_no_namespaces(user: int) -> str:
    """What keeps this user's servers from running on this host, for those who skip; empty if nothing does."""
    words = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount", "--uts", "--net", "--ipc"]
    words += ["mount", "-t", "proc", "proc", "/proc"]
    every_user = Path("/proc/self/uid_map").read_text().split()[2] == "4294967295"
    if user == 0 and every_user:  # a server of the host's root runs as another user
        become = ["setpriv", f"--reuid={SERVER_UID}", f"--regid={SERVER_UID}", "--clear-groups", "--"]
        words = ["unshare", "--mount", *become, *words]
    as_user: dict[str, Any] = {} if user == os.geteuid() else {"user": user, "group": user, "extra_groups": []}
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, **as_user)
    except FileNotFoundError as error:
        return f"{error.filename} is not installed"
    if done.returncode == 0:
        return ""
    return f"this host does not let user {user} make the namespaces of a server: {done.stderr.strip()}"


@cache
def catalogue(root: Path) -> Catalogue:
    """What the project reads from a nulib tree."""
    read = read_catalogue(Nushell(Path(find_nu()), (0, 0, 0)), sweep([root]))
    assert not read.broken, read.broken
    return read


def wait_until(predicate: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """The first true value of the predicate; fails the test after the deadline."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        pause.wait(0.005)
    return value


class Attempt:
    """One started operation."""

    def __init__(self, process: subprocess.Popen[bytes], result: int, log: Path) -> None:
        self.process, self._result, self.log = process, result, log

    def answer(self, seconds: float = 60) -> dict[str, Any]:
        """What the operation answered: {"result": ...} or {"error": {...}}."""
        self.process.wait(seconds)
        answer = answer_in(self._result)
        os.close(self._result)
        assert answer, f"exit {self.process.returncode}, no answer: {self.log.read_text()}"
        return answer

    def kill(self) -> None:
        """What the end of an attempt by force is: KILL to its process group."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._result)


class Operations:
    """Starts operations as one user, in a folder that this user may reach."""

    def __init__(self, folder: Path, user: int) -> None:
        self.folder, self.user, self.nulib = folder, user, folder / "tree"
        self.servers = folder / "servers"
        self.infra = folder / "infra"
        self.credentials = folder / "credentials"
        self.env = {
            "PATH": os.environ["PATH"],
            "PROVISIONING_SERVERS": str(self.servers),
            "PROVISIONING_INFRA": str(self.infra),
            "PROVISIONING_CREDENTIALS": str(self.credentials),
        }
        self.before: list[str] = []
        """A command that nu is started below."""
        self._count = 0
        (folder / "entries").mkdir(mode=0o755)
        shutil.copytree(NULIB, self.nulib)
        self.nu = find_nu()
        if user != os.geteuid() and not may_execute(self.nu, user):
            self.nu = shutil.copy(self.nu, str(folder / "nu"))
        self.catalogue = catalogue(NULIB)

    def start(self, operation: str, /, **given: Any) -> Attempt:
        """Start an operation, its flags written with _, in a process group of its own."""
        declared = self.catalogue.operation(operation)
        params = declared.filled({name.replace("_", "-"): value for name, value in given.items()})
        assert len(given.keys() & {name.replace("-", "_") for name in params}) == len(given), list(params)
        self._count += 1
        entry = self.folder / "entries" / f"{self._count}.nu"
        entry.write_text(entry_source(declared))
        entry.chmod(0o644)
        return self._spawn(entry, {"params": params, "env": self.env})

    def _spawn(self, entry: Path, request: dict[str, Any]) -> Attempt:
        request_fd, result_fd = os.memfd_create("request"), os.memfd_create("result")
        os.write(request_fd, json.dumps(request).encode())
        os.lseek(request_fd, 0, os.SEEK_SET)
        os.fchmod(request_fd, 0o666)
        os.fchmod(result_fd, 0o666)
        log_path = self.folder / f"log-{self._count}"
        log = os.open(log_path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        fcntl.flock(log, fcntl.LOCK_EX)

        # Numbers that are surely not in the way of 3, 4, 5, 9 and 200.
        numbers = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 300) for fd in (request_fd, result_fd, log)]
        # As fixed numbers a child can only get them from a shell that places them.
        place = '''n=("$@"); exec 3<&"${n[0]}" 4<&"${n[1]}" 5<&"${n[2]}" 9<&5 200<&5; shift 3
for fd in "${n[@]:0:3}"; do exec {fd}>&-; done; exec "$@"'''
        other = self.user != os.geteuid()
        process = subprocess.Popen(
            ["bash", "-c", place, "place", *map(str, numbers), *self.before, self.nu, "-n", "--no-std-lib", str(entry)],
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=numbers,
            start_new_session=True,
            cwd="/",
            user=self.user if other else None,
            group=self.user if other else None,
            extra_groups=[] if other else None,
        )
        for number in numbers:
            os.close(number)
        os.close(request_fd)
        os.close(log)
        return Attempt(process, result_fd, log_path)

    def settings(self, infra: str, text: str) -> Path:
        """Write the settings of an infra; its folder."""
        folder = self.infra / infra
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.toml").write_text(text)
        for path in (self.infra, folder):
            path.chmod(0o755)
        (folder / "settings.toml").chmod(0o644)
        return folder

    def credential(self, name: str, text: str) -> Path:
        """Keep a secret; its file."""
        self.credentials.mkdir(exist_ok=True)
        file = self.credentials / name
        file.unlink(missing_ok=True)
        file.write_text(text)
        file.chmod(0o400)
        return file

    def run(self, operation: str, /, **given: Any) -> Any:
        """The result of an operation; fails the test if it answers with an error."""
        answer = self.start(operation, **given).answer()
        assert "result" in answer, answer
        return answer["result"]

    def error(self, operation: str, /, **given: Any) -> dict[str, Any]:
        """The error of an operation; fails the test if it succeeds."""
        answer = self.start(operation, **given).answer()
        assert "error" in answer, answer
        error: dict[str, Any] = answer["error"]
        return error


def server_processes(name: str) -> set[int]:
    """Keepers of servers with this name, and all that descends from them."""
    parents, keepers = {}, set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if stat[0] in "ZX":
            continue
        parents[int(entry.name)] = int(stat[1])
        if b"-s" in words and name.encode() in words:
            keepers.add(int(entry.name))
    found = set(keepers)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


@contextlib.contextmanager
def network_namespace() -> Iterator[int]:
    """A process in a network namespace of its own, where bridges and ports are nobody else's matter."""
    words = ["unshare", "--net", "sh", "-c", "ip link set lo up; echo ready; exec sleep 1000"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == b"ready\n"
        try:
            yield held.pid
        finally:
            held.kill()


def end_servers(operations: Operations) -> None:
    """End every process of the servers that a test has left."""
    for record in operations.servers.glob("*/*/keeper"):
        for pid in server_processes(record.parent.name):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for line in (
            (record.parent / "cgroups").read_text().splitlines() if (record.parent / "cgroups").exists() else ()
        ):
            wait_until(partial(remove_group, Path(line)), f"the end of {line}")


def remove_group(group: Path) -> bool:
    """Remove a control group that nobody is in any more."""
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def nu_tests() -> list[tuple[str, str]]:
    """File and name of every test in nulib/tests."""
    pattern = re.compile(r'^export def "(test [^"]+)"', re.MULTILINE)
    return [
        (file.name, name)
        for file in sorted((NULIB / "tests").glob("*.nu"))
        for name in pattern.findall(file.read_text())
    ]
