"""A cloud as the config says it is reached: its token by name, a proxy, and an authority of the site's own for TLS."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.installation import Installation
from tests.nulib.tls import Proxy, own_authority, proxy
from tests.nulib.upcloud_fake import TOKEN, FakeUpCloud, Refusal

pytestmark = [
    pytest.mark.nu,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed: it makes the certificates"),
]


class Cloud:
    """An account behind TLS and a proxy, and an installation whose config knows the way there."""

    def __init__(self, site: Installation, account: FakeUpCloud, way: Proxy, authority: Path) -> None:
        self.site, self.account, self.way = site, account, way
        (site.root / "credentials").mkdir()
        self.token = site.root / "credentials" / "cloud"
        self.token.write_text(f"{TOKEN}\n")
        self.token.chmod(0o400)
        site.settings(
            paths_infra=site.root / "infra",
            paths_credentials=site.root / "credentials",
            environment_https_proxy=way.url,
            environment_ssl_cert_file=authority,
        )
        settings = site.root / "infra" / "trial" / "settings.toml"
        settings.parent.mkdir(parents=True)
        settings.write_text(
            'provider = "upcloud"\n[upcloud]\ncredential = "cloud"\nzone = "fi-hel1"\npoll_seconds = 0.01\n'
            f'template = "Debian GNU/Linux 12 (Bookworm)"\nurl = "{account.url}"\n'
        )

    def server(self, verb: str, *words: str, code: int = 0) -> Any:
        """What a command on servers answers as JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "provisioning", "server", verb, *words, "--infra", "trial", "--json"],
            env=self.site.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def cloud(site: Installation) -> Iterator[Cloud]:
    authority, context = own_authority(site.root)
    account = FakeUpCloud(context)
    try:
        with proxy() as way:
            yield Cloud(site, account, way, authority)
    finally:
        account.close()


def test_a_server_is_made_by_token_proxy_and_authority_of_the_config(cloud: Cloud) -> None:
    created = cloud.server("create", "web-1")
    assert (created["provider"], created["state"]) == ("upcloud", "running")
    assert len(cloud.account.servers) == 1
    address = cloud.account.url.removeprefix("https://")
    assert set(cloud.way.asked) == {address}, "every call went by the proxy, and nowhere else"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "HTTPS_PROXY"])
def test_without_the_authority_or_with_a_dead_proxy_nothing_is_sent(cloud: Cloud, variable: str) -> None:
    if variable == "SSL_CERT_FILE":
        del cloud.site.environment["PROVISIONING_ENVIRONMENT_SSL_CERT_FILE"]
    else:
        cloud.site.settings(environment_https_proxy="http://127.0.0.1:9")
    error = cloud.server("plans", "--provider", "upcloud", code=1)["error"]
    assert error["code"] == "provisioning::upcloud::unreachable"
    assert "the proxy and the CA" in error["hint"]
    assert cloud.account.calls == []


def test_a_token_that_an_answer_repeats_is_not_shown(cloud: Cloud) -> None:
    cloud.account.inject("GET", "^/plan$", Refusal(400, "ECHO", f"I was told {TOKEN}, which I repeat."))
    error = cloud.server("plans", "--provider", "upcloud", code=1)["error"]
    assert "I was told [secret cloud], which" in error["message"]
    kept = b"".join(path.read_bytes() for path in cloud.site.spool.root.rglob("*") if path.is_file())
    assert b"I was told" in kept
    assert TOKEN.encode() not in kept


def test_a_token_that_others_may_read_is_refused(cloud: Cloud) -> None:
    cloud.token.chmod(0o444)
    error = cloud.server("plans", "--provider", "upcloud", code=1)["error"]
    assert error["code"] == "provisioning::credential::unsafe"
    assert cloud.account.calls == []
