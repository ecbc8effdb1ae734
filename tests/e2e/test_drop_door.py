"""The drop door through a real sshd: two operators, a forced command, scp, scp -O, sftp, rsync, and clients killed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from provisioning.core.drop import Receipt, seal
from provisioning.storage import drop
from tests.e2e.conftest import PROGRAM, UNPACKED
from tests.installation import Installation
from tests.waiting import wait_for

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
pytestmark = [
    pytest.mark.nu,
    pytest.mark.root,
    pytest.mark.skipif(SSHD is None or shutil.which("rsync") is None, reason="needs sshd and rsync"),
]
OPERATORS = {"alice-door": 61001, "bob-door": 61002}
"""Users of a namespace of the test's own: on the host nobody is called so."""
GRANT = """\
[[grant]]
operators = ["alice-door", "bob-door", "carol"]
operations = ["selftest.mark", "selftest.noop"]
"""


def inside(root: Path) -> list[str]:
    """What runs a command where the operators are users: an own view of /etc/passwd, and an own /run/sshd."""
    passwd, group = root / "passwd", root / "group"
    homes = [f"{name}:x:{uid}:{uid}::{root}/{name}:/bin/sh\n" for name, uid in OPERATORS.items()]
    passwd.write_text(Path("/etc/passwd").read_text() + "".join(homes))
    group.write_text(Path("/etc/group").read_text() + "".join(f"{name}:x:{uid}:\n" for name, uid in OPERATORS.items()))
    (root / "run").mkdir(mode=0o755)
    mounts = f"mount --bind {passwd} /etc/passwd; mount --bind {group} /etc/group; mkdir -p /run/sshd; "
    mounts += f'mount --bind {root}/run /run/sshd; exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounts, "sh"]


class Site:
    """An installation whose operators come in by ssh."""

    def __init__(self, root: Path, cache: Path) -> None:
        root.chmod(0o755)
        self.root = root
        self.installation = Installation(root, cache, program=[str(PROGRAM)])
        self.installation.environment |= UNPACKED
        if "TESTED_PROGRAM" in os.environ:
            del self.installation.environment["PROVISIONING_NU"]  # it has its own
        self.installation.settings(
            drop_grace_seconds=30, paths_authority=root / "authority.toml", orchestrator_scan_seconds=1
        )
        (root / "authority.toml").write_text(GRANT)
        self.before = inside(root)
        self.spool = self.installation.spool
        for name, uid in OPERATORS.items():
            self._home(name, uid)
        self._run(["spool", "init", str(self.spool.root), "--operators", ",".join(OPERATORS)])
        self.port = self._free_port()
        self._sshd = self._start_sshd()
        self.installation.settings(drop_host="here")
        self.orchestrator = self.installation.start("orchestrator", "run", "--slots", "4", before=self.before)
        wait_for(lambda: self.spool.running_orchestrator() is not None, 60, "the orchestrator")

    def _run(self, arguments: Sequence[str]) -> None:
        command = [*self.before, str(PROGRAM), *arguments]
        subprocess.run(command, env=self.installation.environment, cwd=self.root, check=True, capture_output=True)

    def _home(self, name: str, uid: int) -> None:
        home = self.root / name
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        self._key(name)
        shutil.copy(self.root / f"key-{name}.pub", home / ".ssh" / "authorized_keys")
        for path in (home, home / ".ssh", home / ".ssh" / "authorized_keys"):
            os.chown(path, uid, uid)

    def _key(self, name: str) -> Path:
        path = self.root / f"key-{name}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
        return path

    @staticmethod
    def _free_port() -> int:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            return int(one.getsockname()[1])

    def _start_sshd(self) -> subprocess.Popen[bytes]:
        self._key("host")
        self._key("carol")
        forced = self.root / "receive"
        lines = [f"export {name}='{value}'" for name, value in self.installation.environment.items()]
        forced.write_text("#!/bin/sh\n" + "\n".join(lines) + f'\nexec {PROGRAM} "$@"\n')
        forced.chmod(0o755)
        carol = (self.root / "key-carol.pub").read_text()
        (self.root / "keys-root").write_text(f'restrict,command="{forced} spool receive --as carol" {carol}')
        (self.root / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.root}/key-host\nPidFile {self.root}/sshd.pid\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin forced-commands-only\nMaxStartups 100\nSubsystem sftp internal-sftp -u 0022\n"
            f"Match User root\n    AuthorizedKeysFile {self.root}/keys-root\n"
        )
        with open(self.root / "sshd.log", "wb") as log:
            process = subprocess.Popen(
                [*self.before, str(SSHD), "-D", "-e", "-f", str(self.root / "sshd_config")], stdout=log, stderr=log
            )

        def listens() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            return False

        wait_for(listens, 20, "sshd")
        return process

    def options(self, key: str) -> list[str]:
        """How clients find the server, and trust it."""
        settings = {
            "IdentityFile": self.root / f"key-{key}",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
        }
        return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]

    def folder(self, name: str) -> Path:
        return self.spool.drop / name

    def receipt(self, operator: str, name: str) -> Receipt | None:
        return drop.read_receipt(self.folder(operator) / f"{name}.receipt.json")

    def answer(self, operator: str, name: str, seconds: float = 60) -> Receipt:
        """The receipt of a drop that waits for nothing more."""

        def there() -> Receipt | None:
            found = self.receipt(operator, name)
            return found if found and found.answer != "waiting" else None

        return wait_for(there, seconds, f"the receipt of {name}\n{self.installation.said()[-2000:]}") or Receipt(
            1, "", "", "", found_never()
        )

    def manifest(self, line: str, *, filler: int = 0) -> bytes:
        """A manifest that leaves a mark; with a comment of so many bytes within."""
        mark = f'{{ file = "{self.installation.marks}", line = "{line}" }}'
        return (
            f'schema = 1\nname = "marked"\n# {"x" * filler}\n[[tasks]]\nid = "a"\noperation = "selftest.mark"\n'
            f"params = {mark}\n"
        ).encode()

    def send(self, how: str, operator: str, path: Path, *, limit: int | None = None) -> subprocess.Popen[bytes]:
        """Start a transfer of the file into the operator's folder; `limit` in KiB a second."""
        target = f"{self.folder(operator)}/{path.name}"
        at, options = f"{operator}@127.0.0.1", self.options(operator)
        slow = ["-l", str(limit * 8)] if limit else []
        if how == "sftp":
            command = ["sftp", "-q", *slow, "-P", str(self.port), *options, "-b", "-", at]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            assert process.stdin is not None
            process.stdin.write(f"put {path} {target}\n".encode())
            process.stdin.close()
            return process
        if how.startswith("rsync"):
            shell = " ".join(["ssh", "-p", str(self.port), *options])
            slow = [f"--bwlimit={limit}"] if limit else []
            extra = {"rsync": [], "rsync --partial": ["--partial"], "rsync --inplace": ["--inplace"]}[how]
            return subprocess.Popen(["rsync", "-t", *slow, *extra, "-e", shell, str(path), f"{at}:{target}"])
        if how == "cat":
            command = ["ssh", "-p", str(self.port), *options, at, f"cat >{target}"]
            with open(path, "rb") as file:
                return subprocess.Popen(command, stdin=file)
        legacy = ["-O"] if how == "scp -O" else []
        return subprocess.Popen(
            ["scp", "-q", *legacy, *slow, "-P", str(self.port), *options, str(path), f"{at}:{target}"]
        )

    def receive(self, data: bytes) -> tuple[int, dict[str, Any]]:
        """Send it to the forced command; exit code and receipt."""
        command = ["ssh", "-p", str(self.port), *self.options("carol"), "root@127.0.0.1", "cat /etc/shadow"]
        done = subprocess.run(command, input=data, capture_output=True, timeout=90, check=False)
        return done.returncode, json.loads(done.stdout)

    def close(self) -> None:
        self._sshd.terminate()
        self._sshd.wait()
        self.installation.close()


def found_never() -> Any:
    raise AssertionError


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = Path(tempfile.mkdtemp(prefix="drop-door-"))  # pytest keeps its own folders closed to the operators
    made = Site(root, tmp_path_factory.mktemp("cache"))
    yield made
    made.close()
    shutil.rmtree(root)


WAYS = ["scp", "scp -O", "sftp", "rsync", "rsync --partial", "rsync --inplace", "cat"]


@pytest.mark.parametrize("how", WAYS)
def test_a_drop_by_every_client(door: Site, how: str) -> None:
    name = f"{how.replace(' ', '').replace('-', '')}.toml"
    path = door.root / name
    path.write_bytes(seal(door.manifest(how)))
    assert door.send(how, "alice-door", path).wait(60) == 0
    receipt = door.answer("alice-door", name)
    assert (receipt.answer, receipt.operator) == ("accepted", "alice-door"), receipt
    wait_for(lambda: how in door.installation.mark_lines(), 60, "its mark")
    wait_for(lambda: getattr(door.receipt("alice-door", name), "state", "") == "succeeded", 30, "its end")


def test_digest_first_or_last(door: Site) -> None:
    for order in (1, -1):
        name = f"order{order}.json"
        tasks = [{"id": "a", "operation": "selftest.noop"}]
        data = json.dumps({"schema": 1, "name": "j", "tasks": tasks}).encode()
        (door.root / name).write_bytes(data)
        (door.root / f"{name}.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
        for each in [name, f"{name}.sha256"][::order]:
            assert door.send("scp", "bob-door", door.root / each).wait(60) == 0
        assert door.answer("bob-door", name).answer == "accepted"


def test_nobody_else(door: Site) -> None:
    """Neither can look into the other's folder, nor into the spool; and a drop is its folder's owner's."""
    theirs = door.folder("bob-door")
    at = ["ssh", "-p", str(door.port), *door.options("alice-door"), "alice-door@127.0.0.1"]
    for command in (f"ls {theirs}", f"ls {door.spool.root}", f"touch {theirs}/x.toml", f"cat {door.spool.root}/format"):
        assert subprocess.run([*at, command], capture_output=True, check=False).returncode != 0, command
    path = door.root / "others.toml"
    path.write_bytes(seal(door.manifest("others")))
    assert door.send("scp", "alice-door", path).wait(60) == 0
    assert door.answer("alice-door", "others.toml").operator == "alice-door"


def test_the_forced_command(door: Site) -> None:
    code, receipt = door.receive(seal(door.manifest("received")))
    assert (code, receipt["answer"], receipt["operator"]) == (0, "accepted", "carol")
    wait_for(lambda: "received" in door.installation.mark_lines(), 60, "its mark")
    code, receipt = door.receive(seal(door.manifest("received-cut"))[:-20])
    assert (code, receipt["reason"]["code"]) == (3, "incomplete")
    code, receipt = door.receive(seal(door.manifest("x").replace(b"selftest.mark", b"commands.run")))
    assert receipt["answer"] == "rejected"
    assert "received-cut" not in door.installation.mark_lines()


def test_what_is_left_of_a_failure_comes_back_by_scp(door: Site) -> None:
    late = door.root / "late"
    tasks = [
        door.installation.mark("left-done"),
        {
            "id": "bad",
            "operation": "selftest.mark",
            "depends_on": ["left-done"],
            "params": {"file": str(late / "marks"), "line": "left"},
        },
    ]
    path = door.root / "left.json"
    _drop(door, path, json.dumps({"schema": 1, "name": "left", "tasks": tasks}).encode())
    wait_for(lambda: getattr(door.receipt("alice-door", "left.json"), "state", "") == "failed", 60, "its failure")
    receipt = door.receipt("alice-door", "left.json")
    assert receipt is not None
    late.mkdir(mode=0o755)
    rest = door.root / "left-rest.json"
    theirs = f"alice-door@127.0.0.1:{door.folder('alice-door')}/{receipt.rescue}"
    fetch = ["scp", "-q", "-P", str(door.port), *door.options("alice-door"), theirs, str(rest)]
    subprocess.run(fetch, check=True, timeout=60)
    _drop(door, rest, rest.read_bytes())
    wait_for(lambda: getattr(door.receipt("alice-door", rest.name), "state", "") == "succeeded", 60, "its end")
    assert (late / "marks").read_text() == "left\n"
    assert door.installation.mark_lines().count("left-done") == 1


def _drop(door: Site, path: Path, data: bytes) -> None:
    """Send a file of JSON, its digest first, as alice does."""
    listing = path.with_name(f"{path.name}.sha256")
    path.write_bytes(data)
    listing.write_text(f"{hashlib.sha256(data).hexdigest()}  {path.name}\n")
    for each in (listing, path):
        assert door.send("scp", "alice-door", each).wait(60) == 0


def arrives(door: Site, how: str, path: Path) -> None:
    """Send it whole; a busy server may turn a client away."""
    wait_for(lambda: door.send(how, "bob-door", path).wait(60) == 0, 60, f"{how} of {path.name}")


@pytest.mark.parametrize("count", [pytest.param(200, marks=pytest.mark.long), 6])
def test_what_is_cut_off_or_mixed_never_runs(door: Site, count: int) -> None:
    """Transfers, and overwrites of what waits, are killed at random points: only what was sent whole is run."""
    seed = int(os.environ.get("PROVISIONING_SEED", "0")) or random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown where it fails
    dice, run = random.Random(seed), f"{seed}-of-{count}"
    whole: set[str] = set()
    for number in range(count):
        how, name = dice.choice([way for way in WAYS if way != "cat"]), f"cut{run}-{number}.toml"
        path = door.root / name
        lines = [f"{run}-{number}-{version}" for version in ("old", "new")]
        if overwrite := dice.random() < 0.5:
            path.write_bytes(door.manifest(lines[0], filler=200_000))  # bare: it stays, and waits
            arrives(door, how, path)
        path.write_bytes(seal(door.manifest(lines[1], filler=200_000 - 2 * overwrite)))
        process = door.send(how, "bob-door", path, limit=400)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(dice.uniform(0.1, 1.2))
        process.kill()
        if process.wait() == 0:
            whole.add(lines[1])
        path.unlink()
    path = door.root / f"last{run}.toml"
    path.write_bytes(seal(door.manifest(f"{run}-last")))
    arrives(door, "scp", path)
    door.answer("bob-door", path.name)
    wait_for(lambda: f"{run}-last" in door.installation.mark_lines(), 60, "the last one")
    wait_for(lambda: whole <= set(door.installation.mark_lines()), 60, "those that were sent whole")
    ran = [line for line in door.installation.mark_lines() if line.startswith(f"{run}-") and not line.endswith("last")]
    assert [line for line in ran if ran.count(line) > 1] == []
    assert [line for line in ran if line.endswith("old")] == []
    for folder in (door.spool.workflows, door.spool.incoming):
        for manifest in folder.glob("*/manifest.toml"):
            assert seal(manifest.read_bytes()) == manifest.read_bytes(), "only whole ones were accepted"


@pytest.mark.long
@pytest.mark.timeout(4500)
def test_a_transfer_of_an_hour(door: Site) -> None:
    """It outlasts every grace, which begins anew with each piece; nothing of it runs before the last one has come."""
    seconds = float(os.environ.get("PROVISIONING_TRANSFER_SECONDS", "3600"))
    data, target = seal(door.manifest("hour", filler=200_000)), f"{door.folder('alice-door')}/hour.toml"
    command = ["ssh", "-p", str(door.port), *door.options("alice-door"), "alice-door@127.0.0.1", f"cat >{target}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0)
    assert process.stdin is not None
    began, sent = time.monotonic(), 0
    pause = threading.Event()
    while sent < len(data):
        due = int(len(data) * min(1.0, (time.monotonic() - began) / seconds))
        sent += process.stdin.write(data[sent : max(due, sent + 1)])
        pause.wait(min(10.0, seconds / 100))
        receipt = door.receipt("alice-door", "hour.toml")
        assert "hour" not in door.installation.mark_lines() or sent == len(data)
        assert receipt is None or receipt.answer != "rejected"
    process.stdin.close()
    assert process.wait() == 0
    wait_for(lambda: "hour" in door.installation.mark_lines(), 60, "its mark")
    assert door.installation.mark_lines().count("hour") == 1
