"""What is left of a dropped workflow that failed: a manifest beside its receipt, to be dropped again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from provisioning.core.drop import Receipt
from provisioning.orchestrator.trust import own_name
from provisioning.storage import receipts
from provisioning.storage.check import check
from tests.installation import Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

SECRET = "zq7-Hidden-Value-0815-of-forty-characters"


@pytest.fixture
def folder(site: Installation) -> Path:
    """A drop folder, and a credential that operations may be given."""
    credentials = site.root / "credentials"
    credentials.mkdir(mode=0o700)
    (credentials / "token").write_text(f"{SECRET}\n")
    (credentials / "token").chmod(0o400)
    site.settings(paths_credentials=credentials, paths_signers=site.root / "allowed_signers", drop_host="here")
    made = site.spool.drop / own_name()
    made.mkdir(mode=0o700)
    return made


def put(folder: Path, name: str, data: bytes) -> None:
    """Drop a file, its digest first."""
    (folder / f"{name}.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
    (folder / f".{name}").write_bytes(data)
    (folder / f".{name}").rename(folder / name)


def ended(site: Installation, folder: Path, name: str) -> Receipt:
    """The last receipt of the file."""

    def last() -> Receipt | None:
        found = receipts.read(folder / f"{name}.receipt.json")
        return found if found is not None and (found.ended_at or found.answer == "rejected") else None

    wait_for(lambda: last() is not None, 40, lambda: f"the end of {name}\n{site.said()}")
    found = last()
    assert found is not None
    return found


def manifest(tasks: list[dict[str, Any]], **head: Any) -> bytes:
    return json.dumps({"schema": 1, "name": "nightly", **head, "tasks": tasks}).encode()


def failing(site: Installation, **head: Any) -> bytes:
    """Two tasks that are done, one that fails until there is a gate, and three that wait for it."""
    secret = {"token": {"credential": "token"}, "how": "return"}
    until = {"script": f"test -e {site.root}/gate"}
    return manifest(
        [
            site.mark("done"),
            {"id": "told", "operation": "trial.secret", "params": secret},
            {"id": "bad", "operation": "trial.again", "params": until, "depends_on": ["done", "told"]},
            {"id": "again", "operation": "trial.secret", "params": secret, "depends_on": ["bad"]},
            site.mark("behind", depends_on=["bad"]),
            {
                "id": "says",
                "operation": "selftest.echo",
                "params": {"value": "${tasks.told.result.text}"},
                "depends_on": ["told", "behind"],
            },
        ],
        **head,
    )


def test_what_is_left_is_beside_the_receipt_and_goes_on_when_it_is_dropped(site: Installation, folder: Path) -> None:
    site.settings(drop_trust_unsealed="true")  # where a bare manifest would be taken at once
    site.orchestrator()
    put(folder, "nightly.json", failing(site))
    receipt = ended(site, folder, "nightly.json")
    assert (receipt.state, receipt.rescue) == ("failed", f"nightly.json.{receipt.workflow_id}.rescue.json")
    left = folder / receipt.rescue
    data = left.read_bytes()
    assert (stat.S_IMODE(left.stat().st_mode), SECRET.encode() in data) == (0o644, False)
    assert [task["id"] for task in json.loads(data)["tasks"]] == ["bad", "again", "behind", "says"]
    (site.root / "gate").touch()
    put(folder, "other.json", manifest([site.mark("other")]))  # a look at the folder takes none of our own files
    assert ended(site, folder, "other.json").rescue == ""
    assert (left.read_bytes(), site.mark_lines(), check(site.spool.root)) == (data, ["done", "other"], [])

    put(folder, "rest.json", data)
    assert ended(site, folder, "rest.json").state == "succeeded"
    again = ended(site, folder, "rest.json").workflow_id
    assert site.mark_lines() == ["done", "other", "behind"], "what was done is not done again"
    assert site.outcome(again, "says").result == "it is [secret token]"
    assert site.folder(again).submission().id == json.loads(data)["id"]
    put(folder, "once-more.json", data)
    once_more = ended(site, folder, "once-more.json")
    assert (once_more.workflow_id, site.mark_lines()[-1]) == (again, "behind"), "the same rest is the same workflow"


def test_a_rollback_leaves_all_that_it_has_undone(site: Installation, folder: Path) -> None:
    site.orchestrator()
    undo = {"operation": "selftest.mark", "params": {"file": str(site.marks), "line": "undone"}}
    put(
        folder,
        "m.json",
        manifest(
            [
                site.mark("done", undo=undo),
                {"id": "bad", "operation": "selftest.fail", "depends_on": ["done"]},
            ],
            on_failure="rollback",
        ),
    )
    receipt = ended(site, folder, "m.json")
    assert (receipt.state, site.mark_lines()) == ("rolled_back", ["done", "undone"])
    assert [task["id"] for task in json.loads((folder / receipt.rescue).read_bytes())["tasks"]] == ["done", "bad"]


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_what_is_left_can_be_signed(site: Installation, folder: Path) -> None:
    site.orchestrator()
    put(folder, "m.json", failing(site, target_host="here"))
    rest = json.loads((folder / ended(site, folder, "m.json").rescue).read_bytes())
    assert rest["target_host"] == "here"
    key = site.root / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    signers = site.root / "allowed_signers"
    signers.write_text(f'{own_name()} namespaces="provisioning-manifest" {key.with_suffix(".pub").read_text()}')
    signers.chmod(0o600)
    signed = site.root / "rest.json"
    signed.write_text(json.dumps({**rest, "expires_at": "2099-01-01T00:00:00Z"}))
    assert site.start("manifest", "sign", "--key", str(key), str(signed)).wait(60) == 0, site.said()
    (site.root / "gate").touch()
    assert site.start("orchestrator", "stop").wait(60) == 0, site.said()
    site.settings(drop_signature="required")
    site.orchestrator()
    os.rename(signed.with_name("rest.json.sig"), folder / "rest.json.sig")
    os.rename(signed, folder / "rest.json")
    assert ended(site, folder, "rest.json").state == "succeeded"
