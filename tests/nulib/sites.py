"""One site for each provider: operations of an infra whose servers come from it, and what the provider itself has."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.nulib.attempts import Operations, end_servers, network_namespace, server_processes, why_no_namespaces
from tests.nulib.machines import Machine, make_key, why_no_machines
from tests.nulib.upcloud_fake import TOKEN, FakeUpCloud, Fault

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
        return f"touch {self._reached}; while [ ! -e {self._go_on} ]; do sleep 0.01; done"

    def reached(self) -> bool:
        """Whether somebody waits."""
        return self._reached.exists()

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
        waiting_program(machine.folder / "bin", "mv", "server.json", pause)
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
        yield site
        end_servers(site.operations)


@contextlib.contextmanager
def ssh_site() -> Iterator[SshSite]:
    if lacking := why_no_machines():
        pytest.skip(lacking)
    with tempfile.TemporaryDirectory(prefix="nulib-") as name, network_namespace() as network:
        site = SshSite(Path(name), network)
        yield site
        site.close()


class UpcloudSite:
    """An account at a fake UpCloud."""

    provider = "upcloud"
    plan = "1xCPU-1GB"
    name = "web-1"
    can_stop = True

    def __init__(self, folder: Path) -> None:
        self.operations = Operations(folder, os.geteuid())
        self.account = FakeUpCloud()
        self.configure(self.account.url)

    def configure(self, url: str, **more: object) -> None:
        """Write the settings, with the API at that address."""
        values: dict[str, object] = {"url": url, "zone": "fi-hel1", "template": "Debian GNU/Linux 12 (Bookworm)"}
        values |= {"timeout_seconds": 5, "poll_seconds": 0.01, "wait_seconds": 20, "ssh_keys": ["ssh-ed25519 AAAA ops"]}
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in (values | more).items())
        folder = self.operations.settings(INFRA, f'provider = "upcloud"\n[upcloud]\n{text}')
        (folder / "credentials").mkdir(exist_ok=True)
        token = folder / "credentials" / "upcloud-token"
        token.unlink(missing_ok=True)
        token.write_text(f"{TOKEN}\n")
        token.chmod(0o400)

    def there(self) -> list[str]:
        """The servers of the account."""
        servers = self.account.servers.values()
        labels = [{each["key"]: each["value"] for each in server["labels"]["label"]} for server in servers]
        return [found["provisioning-name"] for found in labels]

    def pause(self) -> SlowAnswer:
        """The server is made, and its answer does not come."""
        return SlowAnswer(self.account.inject("POST", "^/server$", "slow"))


class SlowAnswer:
    """A pause in the answer of the API."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def reached(self) -> bool:
        """Whether what was asked is done."""
        return self._fault.reached.is_set()

    def go_on(self) -> None:
        """Let the answer go out."""
        self._fault.go_on.set()


class AwsSite:
    """An account at moto's EC2, worked with the real `aws`."""

    provider = "aws"
    plan = "t3.micro"
    name = "web-1"
    can_stop = True

    def __init__(self, folder: Path, url: str) -> None:
        self.operations = Operations(folder, os.geteuid())
        self._folder = folder
        self.url = url
        self.aws = Path(sys.executable).with_name("aws")
        self.operations.env["PATH"] = f"{self.aws.parent}:{os.environ['PATH']}"
        self.operations.env["PROVISIONING_IDEMPOTENCY_KEY"] = "01jdq0000000000000000000a0/web"
        self.configure(url)

    def configure(self, url: str, **more: object) -> None:
        """Write the settings, with the API at that address."""
        values: dict[str, object] = {
            "region": "eu-north-1",
            "endpoint": url,
            "image": "ami-12c6146b",
            "credential": "aws",
        }
        values |= {"poll_seconds": 0.05, "wait_seconds": 20}
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in (values | more).items())
        plans = '[aws.plans]\n"1xCPU-1GB" = "t3.micro"\n"2xCPU-4GB" = "t3.medium"\n[aws.prices]\n"1xCPU-1GB" = 0.0104\n'
        folder = self.operations.settings(INFRA, f'provider = "aws"\n[aws]\n{text}{plans}')
        (folder / "credentials").mkdir(exist_ok=True)
        keys = folder / "credentials" / "aws"
        keys.unlink(missing_ok=True)
        keys.write_text("[default]\naws_access_key_id = AKIATEST\naws_secret_access_key = secret\n")
        keys.chmod(0o400)

    def instances(self) -> list[dict[str, Any]]:
        """Every instance that EC2 has and that is not ended."""
        folder = self.operations.infra / INFRA
        environment = {
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials" / "aws"),
            "AWS_CONFIG_FILE": "/dev/null",
            "PATH": os.environ["PATH"],
        }
        words = ["--region", "eu-north-1", "--endpoint-url", self.url, "--output", "json", "ec2", "describe-instances"]
        said = subprocess.run([self.aws, *words], env=environment, capture_output=True, check=True).stdout
        found = [instance for each in json.loads(said)["Reservations"] for instance in each["Instances"]]
        return [instance for instance in found if instance["State"]["Name"] not in ("terminated", "shutting-down")]

    def there(self) -> list[str]:
        """The servers of the account."""
        tags = [{tag["Key"]: tag["Value"] for tag in instance["Tags"]} for instance in self.instances()]
        return [found["provisioning-name"] for found in tags]

    def pause(self) -> Files:
        """The instance is made, and `aws` does not end."""
        pause = Files(self._folder)
        shims = self._folder / "shims"
        shims.mkdir()
        (shims / "aws").write_text(
            f'#!/bin/sh\n{self.aws} "$@"\ncode=$?\ncase " $* " in *" run-instances "*) {pause.wait_script()};; esac\n'
            "exit $code\n"
        )
        (shims / "aws").chmod(0o755)
        self.operations.env["PATH"] = f"{shims}:{self.operations.env['PATH']}"
        return pause


@contextlib.contextmanager
def upcloud_site() -> Iterator[UpcloudSite]:
    with tempfile.TemporaryDirectory(prefix="nulib-") as name:
        site = UpcloudSite(Path(name))
        try:
            yield site
        finally:
            site.account.close()


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """The address of moto's server."""
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as server:
        assert server.stderr is not None
        try:
            for line in server.stderr:
                if found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", line):
                    drain = threading.Thread(target=server.stderr.read, daemon=True)
                    drain.start()
                    yield found[1]
                    break
        finally:
            server.kill()


@contextlib.contextmanager
def aws_site() -> Iterator[AwsSite]:
    lacking = [name for name in ("moto", "awscli") if importlib.util.find_spec(name) is None]
    if lacking:
        pytest.skip(f"not installed: {', '.join(lacking)} (packaging/dev setup installs them)")
    with tempfile.TemporaryDirectory(prefix="nulib-") as name, moto() as url:
        yield AwsSite(Path(name), url)


SITES: dict[str, Any] = {"local": local_site, "ssh": ssh_site, "upcloud": upcloud_site, "aws": aws_site}
