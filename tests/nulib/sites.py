"""One site for each provider: operations of an infra whose servers come from it, and what the provider itself has."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.nulib.attempts import Operations, end_servers, network_namespace, server_processes, why_no_namespaces
from tests.nulib.machines import Machine, make_key, why_no_machines

INFRA = "site"


class Pause(Protocol):
    """Where a create under way waits."""

    def reached(self) -> bool:
        """Whether it waits there."""

    def go_on(self) -> None:
        """Let it, and all that come later, pass."""


class Site(Protocol):
    """What the contract suite asks of a provider."""

    operations: Operations
    name: str
    """A name of a server that can be created."""
    provider: str
    plan: str
    can_stop: bool
    has_lock: bool
    """Whether the provider lets one create after the other go on, wherever they are asked for."""

    def there(self) -> list[str]:
        """The names of the servers that the provider itself has for the infra, one for each."""

    def pause(self) -> Pause:
        """Make the next create wait in its midst."""


class Files:
    """A pause made of two files: a program in PATH, or the far side, waits between them."""

    def __init__(self, folder: Path) -> None:
        self._reached, self._go_on = folder / "reached", folder / "go-on"

    def wait_script(self) -> str:
        """Shell words that wait here."""
        return f"echo >>{self._reached}; while [ ! -e {self._go_on} ]; do sleep 0.01; done"

    def reached(self) -> bool:
        """Whether somebody waits."""
        return self.waiting() > 0

    def waiting(self) -> int:
        """How many have come to wait."""
        return self._reached.stat().st_size if self._reached.exists() else 0

    def go_on(self) -> None:
        """Let everybody pass."""
        self._go_on.touch()


def waiting_program(folder: Path, program: str, match: str, pause: Files) -> None:
    """Put a program into the folder that waits when an argument ends with `match`."""
    folder.mkdir(exist_ok=True)
    real = subprocess.check_output(["which", program], text=True).strip()
    (folder / program).write_text(
        f'#!/bin/sh\nfor word; do case $word in *{match}) {pause.wait_script()};; esac; done\nexec {real} "$@"\n'
    )
    (folder / program).chmod(0o755)


class LocalSite:
    """Servers that are containers here."""

    provider = "local"
    plan = "1xCPU-1GB"
    can_stop = True
    has_lock = True

    def __init__(self, folder: Path) -> None:
        self.operations = Operations(folder, os.geteuid())
        self.operations.settings(INFRA, 'provider = "local"\n')
        self.name = f"t-{uuid.uuid4().hex[:12]}"
        self._folder = folder

    def there(self) -> list[str]:
        """Servers whose processes live."""
        names = [path.name for path in (self.operations.servers / INFRA).glob("[!.]*")]
        return [name for name in names if server_processes(name)]

    def pause(self) -> Files:
        """Wait before the record is written: all else is done then."""
        pause = Files(self._folder)
        waiting_program(self._folder / "shims", "sync", "server.json.new", pause)
        self.operations.env["PATH"] = f"{self._folder / 'shims'}:{os.environ['PATH']}"
        return pause


class SshSite:
    """Two machines, web-1 and web-2."""

    provider = "ssh"
    plan = "1xCPU-1GB"
    can_stop = False
    has_lock = True
    name = "web-1"
    SETTINGS = """
provider = "ssh"
[ssh]
key = "key"
reboot = ["kill", "1"]
reboot_seconds = 30
[inventory.web-1]
address = "127.0.0.1"
port = 2201
zone = "rack-1"
[inventory.web-2]
address = "127.0.0.1"
port = 2202
"""

    def __init__(self, folder: Path, network: int) -> None:
        self.operations = Operations(folder, 0)
        self.operations.before = ["nsenter", f"--net=/proc/{network}/ns/net"]
        self.folder = self.operations.settings(INFRA, self.SETTINGS)
        key = self.folder / "key"
        make_key(key)
        self.machines = {f"web-{n}": Machine(folder / f"web-{n}", network, 2200 + n, key) for n in (1, 2)}
        self.trust(*self.machines.values())

    def trust(self, *machines: Machine) -> None:
        """Write the file of known hosts."""
        (self.folder / "known_hosts").write_text("".join(machine.known_host() for machine in machines))

    def there(self) -> list[str]:
        """The machines that say they were adopted."""
        records = [machine.folder / "lib/provisioning/server.json" for machine in self.machines.values()]
        return [json.loads(record.read_text())["name"] for record in records if record.exists()]

    def pause(self) -> Files:
        """Wait before the record on the machine is in place."""
        machine = self.machines[self.name]
        pause = Files(machine.folder)
        waiting_program(machine.folder / "bin", "ln", "server.json", pause)
        return pause

    def connections(self) -> list[int]:
        """The processes that hold the shared connections."""
        said = "".join(_control(socket, "check") for socket in self._shared() if socket.is_socket())
        return [int(pid) for pid in re.findall(r"pid=(\d+)", said)]

    def _shared(self) -> Iterator[Path]:
        """Sockets and locks of the shared connections, of every infra of the test."""
        for infra in self.operations.infra.iterdir():
            words = f"{infra}/key\0{infra}/known_hosts\0"
            prefix = hashlib.sha256(words.encode()).hexdigest()[:8]
            yield from Path(f"/tmp/provisioning-ssh-{os.geteuid()}").glob(f"{prefix}-*")

    def close(self) -> None:
        """End the machines and the connections to them."""
        for machine in self.machines.values():
            machine.stop()
        for path in self._shared():
            if path.is_socket():
                _control(path, "exit")
            path.unlink(missing_ok=True)


def _control(socket: Path, request: str) -> str:
    """What the holder of a shared connection answers."""
    done = subprocess.run(["ssh", "-S", socket, "-O", request, "x"], capture_output=True, text=True, check=False)
    return done.stderr


@contextlib.contextmanager
def local_site() -> Iterator[LocalSite]:
    if forbidden := why_no_namespaces(os.geteuid()):
        pytest.skip(forbidden)
    with tempfile.TemporaryDirectory(prefix="nulib-") as name:
        site = LocalSite(Path(name))
        try:
            yield site
        finally:
            end_servers(site.operations)


@contextlib.contextmanager
def ssh_site() -> Iterator[SshSite]:
    if lacking := why_no_machines():
        pytest.skip(lacking)
    with tempfile.TemporaryDirectory(prefix="nulib-") as name, network_namespace() as network:
        site = SshSite(Path(name), network)
        try:
            yield site
        finally:
            site.close()
