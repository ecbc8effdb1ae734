"""Who does not own the spool submits by the same commands: into their own folder, and the receipt answers."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from provisioning.storage.doors import own_folder
from tests.installation import CHECKOUT, Installation
from tests.others import as_other
from tests.waiting import wait_for

pytestmark = [pytest.mark.nu, pytest.mark.root]

OTHER = "games"
"""A user whom every Debian has, and who owns no file."""
GRANT = f"""\
[[grant]]
operators = ["{OTHER}"]
operations = ["selftest.*"]
"""


class Site:
    """A spool of root's, and a user who has a folder in it."""

    def __init__(self, root: Path, cache: Path) -> None:
        root.chmod(0o755)
        self.installation = Installation(root, cache)
        self.installation.settings(paths_authority=root / "authority.toml", orchestrator_scan_seconds=1)
        (root / "authority.toml").write_text(GRANT)
        self.spool = self.installation.spool
        self.uid = pwd.getpwnam(OTHER).pw_uid
        nu = self.installation.environment["PROVISIONING_NU"]
        self.before = as_other(self.uid, pwd.getpwnam(OTHER).pw_gid, [Path(nu)])
        self.home = root / "home"
        self.home.mkdir()
        os.chown(self.home, self.uid, self.uid)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PROVISIONING_SPOOL": str(self.spool.root),
            "PROVISIONING_NU": nu,
        }

    def open_the_door(self) -> Path:
        assert self.installation.start("spool", "init", str(self.spool.root), "--operators", OTHER).wait(60) == 0
        return self.spool.drop / OTHER

    def run(self, *arguments: str, code: int = 0, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run the program as that user; the test fails unless it ends with that code."""
        done = subprocess.run(
            [*self.before, *CHECKOUT, *arguments],
            env=self.environment,
            cwd=self.home,
            input=text,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def manifest(self, *tasks: Mapping[str, object], **head: object) -> Path:
        path = self.home / "my site.json"
        path.write_text(json.dumps({"schema": 1, "name": "m", **head, "tasks": tasks}))
        return path


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = Path(tempfile.mkdtemp(prefix="own-folder-"))  # pytest keeps its own folders closed to others
    made = Site(root, tmp_path_factory.mktemp("cache"))
    try:
        yield made
    finally:
        made.installation.close()
        shutil.rmtree(root)


def noop(task_id: str = "a") -> dict[str, object]:
    return {"id": task_id, "operation": "selftest.noop"}


def test_a_manifest_goes_into_the_folder_and_its_receipt_is_the_answer(site: Site) -> None:
    folder = site.open_the_door()
    site.installation.orchestrator()
    path = site.manifest(noop())
    workflow_id = site.run("batch", "submit", str(path), "--wait").stdout.strip()
    page = json.loads((site.spool.workflows / workflow_id / "submission.json").read_text())
    assert (page["operator"], page["door"]) == (OTHER, "drop")
    answer = json.loads(site.run("batch", "submit", str(path), "--wait", "--json").stdout)
    assert (answer["state"], answer["counts"]) == ("succeeded", {"succeeded": 1})
    assert answer["workflow_id"] != workflow_id
    toml = 'schema = 1\nname = "m"\n[[tasks]]\nid = "a"\noperation = "selftest.noop"\n'
    assert site.run("batch", "submit", "-", "--format", "toml", text=toml).stdout.strip()
    assert {path.name.split("-")[0] for path in folder.iterdir()} == {"my", "stdin"}
    assert all(path.name.endswith(".receipt.json") for path in folder.iterdir())


def test_what_is_refused_says_why_with_the_same_exit_codes(site: Site) -> None:
    site.open_the_door()
    site.installation.orchestrator()
    said = site.run("batch", "submit", str(site.manifest(noop(), {"id": "b", "operation": "selftest.nop"})), code=3)
    assert "unknown operation" in said.stderr or "selftest.nop" in said.stderr
    assert "my site.json" in said.stderr
    said = site.run("batch", "submit", str(site.manifest({"id": "a", "operation": "servers.list"})), code=5)
    assert "no grant" in said.stderr or "grant" in said.stderr
    failing = {"id": "a", "operation": "selftest.fail", "params": {"code": "provisioning::x::y", "message": "broken"}}
    said = site.run("batch", "submit", str(site.manifest(failing)), "--wait", code=1)
    assert "broken" in said.stderr
    assert said.stdout.strip()
    site.run("batch", "submit", str(site.manifest(noop())), "--at", "02:00", code=2)


def test_an_operation(site: Site) -> None:
    site.open_the_door()
    site.installation.orchestrator()
    assert site.run("selftest", "noop", "--orchestrated", "--wait").stdout.strip()
    assert "--orchestrated" in site.run("selftest", "noop", code=5).stderr


def test_without_an_orchestrator_it_stays_and_is_taken_later(site: Site) -> None:
    folder = site.open_the_door()
    said = site.run("batch", "submit", str(site.manifest(noop())), "--max-wait", "0.2", code=7)
    (name,) = [path.name for path in folder.iterdir() if path.name.endswith(".json")]
    assert f"{folder}/{name}" in said.stderr
    site.installation.orchestrator()
    receipt = folder / f"{name}.receipt.json"
    wait_for(lambda: receipt.exists() and json.loads(receipt.read_text())["answer"] == "accepted", 30, "the receipt")


def test_who_has_no_folder_is_told_so(site: Site) -> None:
    site.spool.root.chmod(0o711)
    said = site.run("batch", "submit", str(site.manifest(noop())), code=5).stderr
    assert f"spool init {site.spool.root} --operators {OTHER}" in said
    folder = site.spool.drop / OTHER
    site.spool.drop.chmod(0o711)
    folder.symlink_to(site.home)  # of somebody who wants to see what others submit
    site.run("batch", "submit", str(site.manifest(noop())), code=5)
    folder.unlink()
    folder.mkdir(mode=0o777)  # root's, not theirs
    site.run("batch", "submit", str(site.manifest(noop())), code=5)
    assert list(folder.iterdir()) == []


def test_the_owner_has_the_spool_itself(site: Site) -> None:
    assert own_folder(site.spool.root, "root") is None
    assert own_folder(site.home / "nowhere", "root") is None
