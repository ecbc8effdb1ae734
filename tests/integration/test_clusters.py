"""Clusters through the spool: planned by Nushell, run like any manifest, on real local servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.installation import Installation
from tests.nulib.attempts import server_processes, why_no_namespaces

pytestmark = [pytest.mark.nu, pytest.mark.skipif(bool(why_no_namespaces(os.geteuid())), reason="no user namespaces")]


@pytest.fixture
def cluster_site(site: Installation) -> Iterator[Installation]:
    """An installation whose servers are its own, and end with it."""
    servers = site.root / "servers"
    site.settings(environment_provisioning_servers=servers, paths_infra=site.root / "infra")
    yield site
    for record in servers.glob("*/*/keeper"):
        for pid in server_processes(record.parent.name):
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue


def write_settings(site: Installation, settings: str) -> None:
    folder = site.root / "infra" / "trial"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.toml").write_text(settings)


def command(site: Installation, *words: str, code: int = 0) -> Any:
    """What a command answers as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "provisioning", *words, "--json"],
        env=site.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def deep(levels: int, wide: int) -> str:
    """A cluster of so many groups one after the other."""
    groups = "".join(
        f"[clusters.deep.groups.g{level}]\nservers = {wide}\n" + (f'after = ["g{level - 1}"]\n' if level else "")
        for level in range(levels)
    )
    return f'provider = "local"\n{groups}'


def test_a_cluster_lives_and_ends(cluster_site: Installation) -> None:
    write_settings(
        cluster_site,
        """
[clusters.site.groups.db]
servers = ["db-1"]
taskservs = ["os"]
[clusters.site.groups.web]
servers = 2
after = ["db"]
gates = [{ operation = "servers.exec", params = { argv = ["grep", "{server}", "/etc/hostname"] }, each = true }]
""",
    )
    words = ("site", "--infra", "trial")
    listed = command(cluster_site, "cluster", "list", "--infra", "trial")
    assert [(one["name"], one["servers"], one["running"]) for one in listed] == [("site", 3, 0)]
    plan = command(cluster_site, "cluster", "create", *words, "--check")
    assert len(plan["waves"]) == 5, plan
    assert command(cluster_site, "server", "list", "--infra", "trial") == []

    made = command(cluster_site, "cluster", "create", *words)
    assert made["create.db-1_create"]["changed"]
    assert made["create.db-1_os"]["changed"]
    shown = command(cluster_site, "cluster", "show", *words)["servers"]
    assert [(one["name"], one["state"], one["taskservs"]) for one in shown] == [
        ("db-1", "running", ["os"]),
        ("site-web-1", "running", []),
        ("site-web-2", "running", []),
    ]
    again = command(cluster_site, "cluster", "create", *words)
    assert not any(result["changed"] for name, result in again.items() if name.endswith(("_create", "_os")))
    ended = command(cluster_site, "cluster", "delete", *words)
    assert all(result["changed"] for result in ended.values())
    assert command(cluster_site, "server", "list", "--infra", "trial") == []


def test_a_deep_cluster_is_planned(cluster_site: Installation) -> None:
    write_settings(cluster_site, deep(60, 3))
    plan = command(cluster_site, "cluster", "create", "deep", "--infra", "trial", "--check")
    assert len(plan["waves"]) == 119  # 60 levels, and 59 joints between them


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_cluster_deeper_than_nushell_can_call(cluster_site: Installation) -> None:
    """60 levels of two servers: as one chain of calls it would end at 50 with recursion_limit_reached."""
    write_settings(cluster_site, deep(60, 2))
    made = command(cluster_site, "cluster", "create", "deep", "--infra", "trial")
    assert sum(name.endswith("_create") for name in made) == 120
    assert len(command(cluster_site, "server", "list", "--infra", "trial")) == 120
    command(cluster_site, "cluster", "delete", "deep", "--infra", "trial")
    assert command(cluster_site, "server", "list", "--infra", "trial") == []


def test_what_is_no_cluster_is_refused_before_anything_is_done(cluster_site: Installation) -> None:
    write_settings(cluster_site, deep(2, 1).replace('after = ["g0"]', 'after = ["gx"]'))
    error = command(cluster_site, "cluster", "create", "deep", "--infra", "trial", code=3)["error"]
    assert "has no group gx" in json.dumps(error)
    error = command(cluster_site, "cluster", "create", "none", "--infra", "trial", code=3)["error"]
    assert "known are: deep" in json.dumps(error)
    write_settings(cluster_site, '[clusters.deep.groups.web]\nservers = 1\ntaskservs = ["os", "ngnx"]\n')
    error = command(cluster_site, "cluster", "create", "deep", "--infra", "trial", code=3)["error"]
    assert "there is no taskserv ngnx" in json.dumps(error)
    data = '{ name = "nginx", data = { prt = 80 } }'
    write_settings(cluster_site, f"[clusters.deep.groups.web]\nservers = 1\ntaskservs = [{data}]\n")
    error = command(cluster_site, "cluster", "create", "deep", "--infra", "trial", code=3)["error"]
    assert "knows no prt" in json.dumps(error)
    assert list(cluster_site.spool.claimed_ids()) == []


def test_infra_commands(cluster_site: Installation) -> None:
    write_settings(cluster_site, 'provider = "local"\n[defaults]\nplan = "2xCPU-4GB"\n')
    names = [one["name"] for one in command(cluster_site, "infra", "list")]
    assert names == ["example", "trial"]
    assert command(cluster_site, "infra", "show", "trial")["settings"]["defaults"] == {"plan": "2xCPU-4GB"}
    for name in names:
        assert command(cluster_site, "infra", "validate", name)["valid"]
    words = ("infra", "show", "trial", "--explain", "servers.create", "--param", "zone=host")
    rows = {row["param"]: (row["value"], row["from"]) for row in command(cluster_site, *words)}
    assert rows["plan"] == ("2xCPU-4GB", "infra: defaults.plan")
    assert rows["zone"] == ("host", "given")
    assert rows["image"] == ("", "operation")
    server = command(cluster_site, "server", "create", "t-infra", "--infra", "trial")
    assert server["plan"] == "2xCPU-4GB"
    command(cluster_site, "server", "delete", "t-infra", "--infra", "trial")
    error = command(cluster_site, "server", "list", "--infra", "trail", code=3)["error"]
    assert "did you mean trial?" in json.dumps(error)
    assert Path(cluster_site.root / "infra").is_dir()
