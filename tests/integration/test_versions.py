"""Newer code, newer operations and newer files: what was planned decides, and what is not understood is not touched."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.installation import NULIB, Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

Gates = Callable[[str], Gate]


# The plan decides


def rewrite(nulib: Path) -> None:
    """The operation does something else."""
    path = nulib / "trial" / "again.nu"
    path.write_text(path.read_text().replace("^sh -c $script", "error make {msg: 'newer'}"))


def reshape(nulib: Path) -> None:
    """The operation takes other params, and is no longer idempotent."""
    path = nulib / "trial" / "again.nu"
    text = path.read_text().replace("script: string", "other: int").replace("$script", "$other")
    path.write_text(text.replace("idempotent: true", "idempotent: false"))


CHANGES: dict[str, Callable[[Path], object]] = {
    "another body": rewrite,
    "another signature": reshape,
    "an operation removed": lambda nulib: (nulib / "trial" / "again.nu").unlink(),
    "all operations removed": lambda nulib: shutil.rmtree(nulib / "trial"),
    "a file that cannot be parsed": lambda nulib: (nulib / "trial" / "again.nu").write_text("export def {"),
}


@pytest.mark.parametrize("crashed", [False, True], ids=["running", "crashed"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_tasks_run_with_the_operations_that_were_planned(
    site: Installation, gate: Gates, change: Callable[[Path], object], crashed: bool
) -> None:
    nulib = site.root / "nulib"
    shutil.copytree(NULIB, nulib)
    site.settings(nulib=nulib)
    one = gate("one")
    tasks = [
        {"id": "a", "operation": "trial.again", "params": {"script": one.script}},
        {
            "id": "b",
            "operation": "trial.again",
            "params": {"script": f"echo b >> {site.marks}"},
            "depends_on": ["a"],
        },
    ]
    workflow_id = site.submit(tasks)
    process = site.orchestrator()
    one.reached()
    change(nulib)
    if crashed:
        process.kill()
        process.wait()
        site.orchestrator()
    one.open()
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.mark_lines() == ["b"]
    assert len(list(site.spool.nulib.iterdir())) == 1


# A spool of a later version


COMMANDS = {
    "workflow list": ["workflow", "list"],
    "workflow status": ["workflow", "status", "01kc0000000000000000000001"],
    "workflow cancel": ["workflow", "cancel", "01kc0000000000000000000001"],
    "workflow cleanup": ["workflow", "cleanup"],
    "batch submit": ["batch", "submit", "manifest.json"],
    "an operation": ["selftest", "noop"],
    "orchestrator run": ["orchestrator", "run"],
    "orchestrator start": ["orchestrator", "start"],
    "a drain": ["orchestrator", "run", "--until-empty"],
    "orchestrator status": ["orchestrator", "status"],
    "spool init": ["spool", "init"],
    "spool check": ["spool", "check"],
    "spool check --repair": ["spool", "check", "--repair"],
    "spool backup": ["spool", "backup", "b.tar"],
}


def everything(root: Path) -> dict[str, str]:
    """Every folder of the spool, and every file and what is in it."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a folder"
        for path in root.rglob("*")
    }


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_spool_of_a_newer_format_is_refused_and_not_touched(site: Installation, command: list[str]) -> None:
    site.submit([site.mark("a")])
    site.spool.close()
    (site.spool.root / "format").write_text("2\n")
    (site.spool.root / "newer").mkdir()
    (site.spool.root / "drop").rmdir()  # what this version would make
    (site.root / "manifest.json").write_text(
        '{"schema": 1, "name": "x", "tasks": [{"id": "a", "operation": "selftest.noop"}]}'
    )
    before = everything(site.spool.root)
    done = subprocess.run(
        [sys.executable, "-m", "provisioning", *command],
        env=site.environment,
        cwd=site.root,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 6, done.stderr
    assert "format '2'" in done.stdout + done.stderr
    assert everything(site.spool.root) == before
    assert not (site.root / "b.tar").exists()


NEWER = ["plan.json", "workflow.json", "tasks/a.json", "outcomes/a.1.json"]


@pytest.mark.parametrize("more", [b"", b',"state":{"new":1}'], ids=["readable", "of another shape"])
@pytest.mark.parametrize("name", NEWER)
def test_a_newer_file_stops_its_workflow_and_stays_as_it_is(
    site: Installation, gate: Gates, name: str, more: bytes
) -> None:
    one = gate("one")
    workflow_id = site.submit([{"id": "a", "operation": "trial.shell", "params": {"script": one.script}}])
    process = site.orchestrator()
    one.reached()
    process.kill()
    process.wait()
    one.open()
    path = site.spool.workflows / workflow_id / name
    wait_for(lambda: site.folder(workflow_id).outcome("a", 1))
    path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":2' + more))
    written = path.read_bytes()
    good = site.submit([site.mark("good")])
    assert site.drain(max_wait=3) == 1
    assert site.state(good) == "succeeded"
    assert path.read_bytes() == written
    done = subprocess.run(
        [sys.executable, "-m", "provisioning", "spool", "check", "--repair"],
        env=site.environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "newer" in done.stderr) == (6, True), done.stdout
    assert path.read_bytes() == written
    assert len(list((site.spool.workflows / workflow_id / "outcomes").iterdir())) == 1
    if name != "workflow.json":
        assert site.state(workflow_id) == "running"


def test_a_newer_request_waits_for_a_newer_program(site: Installation) -> None:
    workflow_id = site.submit([site.mark("a")])
    name = f"{workflow_id}.01kc0000000000000000000001.json"
    path = site.spool.requests / name
    path.write_bytes(b'{"format":2,"verb":["not","known"]}\n')
    good = site.submit([site.mark("good")])
    site.drain(max_wait=3)
    assert site.state(good) == "succeeded"
    assert path.read_bytes() == b'{"format":2,"verb":["not","known"]}\n'
