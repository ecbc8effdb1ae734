"""Services of taskservs on a server that has no service manager."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nulib.attempts import Operations
from tests.nulib.sites import INFRA, LocalSite, local_site

pytestmark = pytest.mark.nu

STEPS = """\
use ../../lib/steps.nu *
def commands []: nothing -> record { in-background waiting [bash -c 'echo begun; exec sleep 1000'] }
def apply [it: record]: nothing -> bool {
  let changed = (put-files $it)
  let served = (have-running $it waiting (commands) --reload=($changed | is-not-empty))
  $served or ($changed | is-not-empty)
}
def main []: any -> nothing {
  collect | take-steps {
    install: {|it| apply $it }
    update: {|it| apply $it }
    remove: {|it| let stopped = (have-stopped $it waiting (commands)); (remove-files $it) or $stopped }
    check: {|it| wait-until $it (commands).running --max 1sec; false }
  }
}
"""


@pytest.fixture
def site() -> Iterator[LocalSite]:
    with local_site() as made:
        yield made


def define_waiting(operations: Operations) -> None:
    """A taskserv that stays in the foreground and reads its configuration when it starts."""
    folder = operations.nulib / "taskservs" / "waiting"
    (folder / "templates").mkdir(parents=True)
    (folder / "taskserv.toml").write_text(
        'version = "1"\n[[files]]\ntemplate = "waiting.tmpl"\npath = "/etc/waiting"\n[data]\nport = 1\n'
    )
    (folder / "templates" / "waiting.tmpl").write_text("{{ port }}\n")
    (folder / "steps.nu").write_text(STEPS)


def test_what_runs_in_the_background_lives_and_ends(site: LocalSite) -> None:
    run, given = site.operations.run, {"name": "waiting", "server": site.name, "infra": INFRA}
    root = site.operations.servers / INFRA / site.name / "root"

    def inside(*argv: str) -> str:
        return str(run("servers.exec", name=site.name, infra=INFRA, argv=list(argv), allow_failure=True)["stdout"])

    define_waiting(site.operations)
    run("servers.create", name=site.name, infra=INFRA)
    assert run("taskservs.create", **given)["changed"]
    first = inside("cat", "/run/waiting.pid")
    assert "sleep" in inside("cat", f"/proc/{first.strip()}/cmdline")
    assert not run("taskservs.create", **given)["changed"]
    assert run("taskservs.create", **given, data={"port": 2})["changed"]
    second = inside("cat", "/run/waiting.pid")
    assert second != first
    assert inside("ls", "-d", f"/proc/{first.strip()}") == ""
    assert (root / "var/log/waiting.log").read_text() == "begun\nbegun\n"

    # One that has died is started again.
    inside("kill", "-9", second.strip())
    assert site.operations.error("taskservs.check", **given)["code"] == "provisioning::taskservs::unhealthy"
    assert run("taskservs.create", **given, data={"port": 2})["changed"]
    assert run("taskservs.check", **given)["healthy"]
    last = inside("cat", "/run/waiting.pid")
    assert run("taskservs.delete", **given)["changed"]
    assert inside("ls", "-d", f"/proc/{last.strip()}", "/run/waiting.pid", "/etc/waiting") == ""


@pytest.mark.parametrize(
    ("ip", "clients", "own"),
    [
        ("", "http://127.0.0.1:2379", "http://127.0.0.1:2380"),
        ("10.0.0.1", "http://10.0.0.1:2379,http://127.0.0.1:2379", "http://10.0.0.1:2380"),
    ],
)
def test_etcd_alone_is_a_cluster_of_itself(site: LocalSite, tmp_path: Path, ip: str, clients: str, own: str) -> None:
    """Also on a server without an address: etcd starts with no member less than itself, and on no empty host."""
    site.operations.run("taskservs.generate", name="etcd", out=str(tmp_path), server="db-1", ip=ip)
    written = (tmp_path / "etc/default/etcd").read_text().splitlines()
    assert {f"ETCD_LISTEN_CLIENT_URLS={clients}", f"ETCD_INITIAL_CLUSTER=db-1={own}"} <= set(written)
