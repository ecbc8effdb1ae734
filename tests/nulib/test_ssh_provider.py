"""The ssh provider against real sshds on loopback, in a network namespace of their own."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nulib.attempts import wait_until
from tests.nulib.machines import make_key
from tests.nulib.sites import INFRA, SshSite, ssh_site

pytestmark = pytest.mark.nu


@pytest.fixture
def site() -> Iterator[SshSite]:
    with ssh_site() as made:
        yield made


def test_no_word_passes_through_a_shell(site: SshSite) -> None:
    site.operations.run("servers.create", name="web-1", infra=INFRA, provider="ssh")
    hostile = ["", "~", "*", "-x", "--help", "$(id)", "a b", "a\nb", "A=b", ")", "ä", "'", '"', "\\"]
    ended = site.operations.run("servers.exec", name="web-1", infra=INFRA, argv=["printf", "%s\\0", *hostile])
    assert ended["stdout"].split("\0")[:-1] == hostile
    ended = site.operations.run("servers.exec", name="web-1", infra=INFRA, argv=["cat"], input="a\nb\0c")
    assert ended["stdout"] == "a\nb\0c"
    for code in (7, 255):
        argv = ["sh", "-c", f"exit {code}"]
        ended = site.operations.run("servers.exec", name="web-1", infra=INFRA, argv=argv, allow_failure=True)
        assert ended["exit_code"] == code


def test_facts_are_recorded(site: SshSite) -> None:
    created = site.operations.run("servers.create", name="web-1", infra=INFRA, provider="ssh")
    assert created["ip"] == "127.0.0.1"
    assert created["zone"] == "rack-1"
    assert created["plan"].startswith(f"{len(os.sched_getaffinity(0))}xCPU-")
    assert site.operations.run("servers.zones", infra=INFRA, provider="ssh")[0]["id"] == "rack-1"


def test_a_machine_is_adopted_by_one_of_those_who_ask_at_once(site: SshSite) -> None:
    site.operations.settings(INFRA, f'{SshSite.SETTINGS}[inventory.web-9]\naddress = "127.0.0.1"\nport = 2201\n')
    pause = site.pause()
    asked = ["web-1", "web-9", "web-1", "web-9"]
    attempts = [site.operations.start("servers.create", name=name, infra=INFRA, provider="ssh") for name in asked]
    wait_until(lambda: pause.waiting() == len(asked), "all at the last step")
    pause.go_on()
    answers = [attempt.answer() for attempt in attempts]
    (kept,) = site.there()
    for name, answer in zip(asked, answers, strict=True):
        if name == kept:
            assert answer["result"]["name"] == name, answer
        else:
            assert answer["error"]["code"] == "provisioning::ssh::invalid-machine", answer
    assert [answer["result"]["changed"] for answer in answers if "result" in answer].count(True) == 1
    assert [path.name for path in (site.machines["web-1"].folder / "lib/provisioning").iterdir()] == ["server.json"]


def test_the_connection_is_shared_and_lets_go(site: SshSite) -> None:
    attempt = site.operations.start("servers.create", name="web-1", infra=INFRA, provider="ssh")
    assert attempt.answer()["result"]["changed"]
    (connection,) = site.connections()
    assert os.getsid(connection) not in (os.getsid(0), attempt.process.pid)
    links = []
    for link in Path(f"/proc/{connection}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(link))
    assert not [link for link in links if "memfd" in link or "log-" in link or link.startswith("pipe:")], links
    subprocess.run(["flock", "--nonblock", attempt.log, "true"], check=True)
    assert site.machines["web-1"].said().count(b"Accepted publickey") == 1
    site.operations.run("servers.exec", name="web-1", infra=INFRA, argv=["true"])
    assert site.machines["web-1"].said().count(b"Accepted publickey") == 1


def test_a_connection_that_was_killed_is_made_once_more_and_shared(site: SshSite) -> None:
    site.operations.run("servers.create", name="web-1", infra=INFRA, provider="ssh")
    (connection,) = site.connections()
    os.kill(connection, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{connection}").exists(), "the end of the connection")
    for _ in range(2):
        site.operations.run("servers.exec", name="web-1", infra=INFRA, argv=["true"])
    assert site.machines["web-1"].said().count(b"Accepted publickey") == 2
    (again,) = site.connections()
    assert again != connection


def test_a_host_key_that_changed_is_refused(site: SshSite) -> None:
    make_key(site.folder / "other")
    kind, key = (site.folder / "other.pub").read_text().split()[:2]
    (site.folder / "known_hosts").write_text(f"[127.0.0.1]:2201 {kind} {key}\n")
    for name in ("web-1", "web-2"):  # another key, and none at all
        error = site.operations.error("servers.create", name=name, infra=INFRA, provider="ssh")
        assert error["code"] == "provisioning::ssh::invalid-host-key", error
    assert site.there() == []


def test_a_login_that_is_refused(site: SshSite) -> None:
    (site.machines["web-1"].folder / "authorized_keys").write_text("")
    error = site.operations.error("servers.create", name="web-1", infra=INFRA, provider="ssh")
    assert error["code"] == "provisioning::ssh::invalid-login"


def test_a_machine_that_is_away(site: SshSite) -> None:
    site.operations.run("servers.create", name="web-1", infra=INFRA, provider="ssh")
    site.operations.run("servers.create", name="web-2", infra=INFRA, provider="ssh")
    site.machines["web-2"].stop()
    error = site.operations.error("servers.show", name="web-2", infra=INFRA)
    assert error["code"] == "provisioning::ssh::unreachable"
    assert error["retry_after"] == 10
    listed = site.operations.run("servers.list", infra=INFRA)
    assert [(server["name"], server["state"]) for server in listed] == [("web-1", "running"), ("web-2", "unreachable")]


def test_a_machine_of_another_infra(site: SshSite) -> None:
    site.operations.run("servers.create", name="web-1", infra=INFRA, provider="ssh")
    other = site.operations.settings("other", site.SETTINGS)
    for name in ("key", "known_hosts"):
        (other / name).write_text((site.folder / name).read_text())
        (other / name).chmod(0o600)
    error = site.operations.error("servers.create", name="web-1", infra="other", provider="ssh")
    assert error["code"] == "provisioning::ssh::invalid-machine"
    assert not site.operations.run("servers.delete", name="web-1", infra="other")["changed"]
    assert site.there() == ["web-1"]


def test_stop_is_refused(site: SshSite) -> None:
    site.operations.run("servers.create", name="web-1", infra=INFRA, provider="ssh")
    error = site.operations.error("servers.stop", name="web-1", infra=INFRA)
    assert error["code"] == "provisioning::ssh::invalid-stop"


def test_settings_that_cannot_be(site: SshSite) -> None:
    site.operations.settings(
        "bad", '[inventory.web-1]\naddress = "-oProxyCommand=id"\n[ssh]\nknown_hosts = "/dev/null"\n'
    )
    error = site.operations.error("servers.create", name="web-1", infra="bad", provider="ssh")
    assert error["code"] == "provisioning::ssh::invalid-settings"
    error = site.operations.error("servers.create", name="web-9", infra=INFRA, provider="ssh")
    assert error["code"] == "provisioning::servers::not-found"
    (site.folder / "known_hosts").unlink()
    error = site.operations.error("servers.create", name="web-1", infra=INFRA, provider="ssh")
    assert "ssh-keyscan" in error["help"]


def test_missing_ssh_is_named(site: SshSite, tmp_path: Path) -> None:
    for program in "bash cat tee tail base64 mktemp rm sha256sum flock stat mkdir cut".split():
        found = shutil.which(program)
        assert found, program
        (tmp_path / program).symlink_to(found)
    site.operations.env["PATH"] = str(tmp_path)
    error = site.operations.error("servers.create", name="web-1", infra=INFRA, provider="ssh")
    assert error["code"] == "provisioning::ssh::program-missing"
    assert "ssh" in error["msg"]


def test_a_restart_is_a_reboot(site: SshSite) -> None:
    site.operations.run("servers.create", name="web-1", infra=INFRA, provider="ssh")
    before = (site.machines["web-1"].folder / "boot").read_text()
    assert site.operations.run("servers.restart", name="web-1", infra=INFRA)["changed"]
    assert (site.machines["web-1"].folder / "boot").read_text() != before
    wait_until(site.connections, "the new connection")
