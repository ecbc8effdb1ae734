"""`nulib/lib/client.nu` with a real Nushell at a real gateway."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.gateway import Gateway
from tests.installation import Installation, find_nu

pytestmark = pytest.mark.nu

CLIENT = Path(__file__).parents[2] / "nulib/lib/client.nu"


@pytest.fixture
def door(site: Installation) -> Gateway:
    return Gateway(site)


def nu(call: str) -> subprocess.CompletedProcess[str]:
    """A script that uses the client, ended."""
    script = f"use {CLIENT} *; try {{ {call} | to json }} catch {{|e| $e.details | select code msg help | to json }}"
    return subprocess.run([find_nu(), "-n", "-c", script], capture_output=True, text=True, timeout=60, check=False)


def answer(call: str) -> object:
    done = nu(call)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_submits_and_looks(site: Installation, door: Gateway) -> None:
    url = f"--url http://localhost:{door.port}"
    workflow_id = answer(f"submit-operation servers.create --infra wuji {url}")
    assert [workflow_id] == site.spool.incoming_ids()
    manifest = json.loads((site.spool.incoming / str(workflow_id) / "manifest.json").read_text())
    assert manifest["tasks"][0]["params"] == {"name": "wuji"}
    page = answer(f"show-workflow {workflow_id} {url}")
    assert isinstance(page, dict)
    assert page["state"] == "queued"
    call = f'submit-operation selftest.echo {{ value: [1 "}}; rm"] }} --socket {door.path} --key once'
    assert answer(call) == answer(call)
    assert len(site.spool.incoming_ids()) == 2


def test_it_says_what_the_door_says(door: Gateway) -> None:
    for call, code in (
        ("submit-operation servers.destroy", "provisioning::gateway::not-found"),
        ("submit-operation selftest.sleep { seconds: many }", "provisioning::gateway::invalid-manifest"),
        ("submit-operation selftest.noop --token wrong", "provisioning::gateway::unknown-token"),
        ("submit-operation 'servers.create/../x'", "provisioning::client::invalid-operation"),
        ("show-workflow ../operations", "provisioning::client::invalid-id"),
    ):
        said = answer(f"{call} --url http://localhost:{door.port}")
        assert isinstance(said, dict)
        assert said["code"] == code, said
        assert said["msg"]
