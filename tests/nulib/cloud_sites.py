"""Sites at clouds that cost nothing: UpCloud's API made again, and EC2 as moto does it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nulib.attempts import Operations
from tests.nulib.sites import INFRA, Files
from tests.nulib.upcloud_fake import TOKEN, FakeUpCloud, Fault


class UpcloudSite:
    """An account at a fake UpCloud."""

    provider = "upcloud"
    plan = "1xCPU-1GB"
    name = "web-1"
    can_stop = True
    has_lock = False

    def __init__(self, folder: Path) -> None:
        self.operations = Operations(folder, os.geteuid())
        self.account = FakeUpCloud()
        self.configure(self.account.url)

    def configure(self, url: str, **more: object) -> None:
        """Write the settings, with the API at that address."""
        values: dict[str, object] = {"url": url, "zone": "fi-hel1", "template": "Debian GNU/Linux 12 (Bookworm)"}
        values |= {"timeout_seconds": 5, "poll_seconds": 0.01, "wait_seconds": 20, "ssh_keys": ["ssh-ed25519 AAAA ops"]}
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in (values | more).items())
        self.operations.settings(INFRA, f'provider = "upcloud"\n[upcloud]\n{text}')
        self.token = self.operations.credential("upcloud-token", f"{TOKEN}\n")

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
    has_lock = False

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
        self.operations.settings(INFRA, f'provider = "aws"\n[aws]\n{text}{plans}')
        keys = "[default]\naws_access_key_id = AKIATEST\naws_secret_access_key = secret\n"
        self.keys = self.operations.credential("aws", keys)

    def instances(self) -> list[dict[str, Any]]:
        """Every instance that EC2 has and that is not ended."""
        environment = {
            "AWS_SHARED_CREDENTIALS_FILE": str(self.keys),
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
