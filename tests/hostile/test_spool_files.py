"""Files of a wrong kind anywhere in the spool: the good workflow beside them runs to its end all the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioning.clock import new_ulid
from tests.installation import Installation


def elsewhere(path: Path) -> Path:
    """A folder beside the spool."""
    root = next(parent for parent in path.parents if parent.name == "spool").with_name("elsewhere")
    root.mkdir(exist_ok=True)
    return root


KINDS: dict[str, Callable[[Path], object]] = {
    "garbage": lambda path: path.write_bytes(b"\xff{"),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a folder": lambda path: path.symlink_to(elsewhere(path), target_is_directory=True),
    "fifo": os.mkfifo,
    "folder": os.mkdir,
    "unreadable": lambda path: os.close(os.open(path, os.O_CREAT, 0)),
}
INCOMING = ["", "submission.json", "manifest.json", "plan.json", "lock"]
CLAIMED = ["", "plan.json", "workflow.json", "submission.json", "manifest.json", "tasks", "outcomes", "logs", "lock"]
CLAIMED += ["tasks/x.json", "outcomes/x.1.json", "logs/x.1.log", "events.jsonl"]
OTHERS = ["requests/{id}.01.json", "requests/x.json", "ids/x.json", "ids/{id}.cleaned", "tmp/{id}", "rejected/x"]


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def site(tmp_path: Path, cache_dir: Path) -> Iterator[Installation]:
    made = Installation(tmp_path, cache_dir)
    yield made
    for folder in made.spool.workflows.iterdir():
        for path in (folder / "logs/x.1.log", folder / "logs", folder):
            remove(path)  # it is in the way of looking for what still lives
    for path in made.spool.tmp.iterdir():
        if path.is_symlink() or not path.is_dir():
            path.unlink()
    made.close()


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def plant(path: Path, kind: str) -> None:
    remove(path)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    KINDS[kind](path)


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_of_a_wrong_kind_stops_the_others(site: Installation, kind: str) -> None:
    spool = site.spool
    for name in INCOMING:
        plant(spool.incoming / site.submit([site.mark("x")]) / name, kind)
    for name in CLAIMED:
        workflow_id = site.submit([site.mark("x")])
        spool.claim(workflow_id)
        plant(spool.workflows / workflow_id / name, kind)
    for name in OTHERS:
        plant(spool.root / name.format(id=new_ulid()), kind)
    twin = site.submit([site.mark("x")])  # its name in workflows/ is taken
    plant(spool.workflows / twin, kind)
    good = site.submit([site.mark("good")])
    code = site.drain()
    assert "Traceback" not in site.said()
    assert (site.state(good), code in (0, 1)) == ("succeeded", True), site.said()
    assert "good" in site.mark_lines()
    assert not any(site.root.glob("elsewhere/*"))  # nothing is written through a link
