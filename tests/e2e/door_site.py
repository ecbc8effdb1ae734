"""A site whose operators come in by ssh: a real sshd, users of its own, an installation."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from provisioning.core.drop import Receipt
from provisioning.storage import receipts
from tests.e2e.conftest import PROGRAM, UNPACKED
from tests.installation import Installation
from tests.waiting import wait_for

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
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
        return receipts.read(self.folder(operator) / f"{name}.receipt.json")

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
