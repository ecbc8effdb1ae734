"""Every kind of damage to every file of a workflow: it alone stops, the file is named, and nothing overwrites it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioning.clock import new_ulid, now
from provisioning.core.workflow import FORMAT, Request, Task
from provisioning.storage import reading
from provisioning.storage.check import check
from provisioning.storage.checkpoint import Damaged
from tests.crash.hands import end
from tests.crash.host import Host

TICKS = 12
"""More than the good workflow needs."""


def newer(path: Path, _other: Path) -> None:
    """As a later version may write it: with another format, and fields of other types."""
    whole = json.loads(path.read_bytes())
    path.write_bytes(json.dumps({name: [] for name in whole} | {"format": FORMAT + 1}).encode())


def replaced(make: Callable[[Path, Path], object]) -> Callable[[Path, Path], None]:
    def damage(path: Path, other: Path) -> None:
        path.unlink()
        make(path, other)

    return damage


DAMAGE: dict[str, Callable[[Path, Path], object]] = {
    "truncated": lambda path, other: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path, other: path.write_bytes(b""),
    "zeroed": lambda path, other: path.write_bytes(bytes(path.stat().st_size)),
    "foreign": lambda path, other: path.write_bytes(b'{"format": 1, "name": "nobody"}\n'),
    "of another": lambda path, other: path.write_bytes(other.read_bytes()),
    "newer": newer,
    "folder": replaced(lambda path, other: path.mkdir()),
    "FIFO": replaced(lambda path, other: os.mkfifo(path)),
    "link": replaced(lambda path, other: path.symlink_to(other)),
}
"""What becomes of a file; `other` is the same file of another workflow or task."""

CLAIMED = ["plan.json", "workflow.json", "tasks/a.json", "outcomes/a.1.json"]
INCOMING = ["submission.json", "manifest.json", "plan.json"]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path, monkeypatch)
    yield made
    made.close()


def looks(path: Path) -> tuple[object, ...]:
    """All that a write would change."""
    found = os.lstat(path)
    return found.st_ino, found.st_mtime_ns, path.read_bytes() if stat.S_ISREG(found.st_mode) else b""


def damaged_beside_a_good_one(host: Host, path: Path, other: Path, kind: str) -> None:
    """Do the damage, have an orchestrator work the spool, and see what must be true of the file and of the others."""
    good = host.submit()
    DAMAGE[kind](path, other)
    before = looks(path)
    orchestrator = host.begin()
    for _ in range(TICKS):
        orchestrator.scan_soon()
        orchestrator.tick()
    assert host.state(good) == "succeeded"
    assert looks(path) == before
    assert str(path) in [problem.file for problem in check(host.root)]


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", CLAIMED)
def test_a_claimed_workflow_with_a_damaged_file_stops_alone(host: Host, name: str, kind: str) -> None:
    other = host.ended(Task("b", "work.once"))
    workflow_id, scratch = host.started()
    os.close(host.log(workflow_id))
    host.publish(workflow_id, scratch)
    end(scratch)
    foreign = host.folder(other).path / name.replace("/a.", "/b.")
    damaged_beside_a_good_one(host, host.folder(workflow_id).path / name, foreign, kind)
    assert host.ran() == ["b.1", "a.1"], "the good one's, and nothing of the damaged one"


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", INCOMING)
def test_a_submission_with_a_damaged_file_stops_alone(host: Host, name: str, kind: str) -> None:
    other = host.ended(Task("b", "work.once"))
    workflow_id = host.submit()
    host.crash("move", "/workflows/*")
    folder = host.person.incoming / workflow_id
    if name == "manifest.json":
        (folder / "plan.json").unlink()  # with a plan nobody reads the manifest again
    damaged_beside_a_good_one(host, folder / name, host.folder(other).path / name, kind)
    assert host.person.incoming_ids() == [workflow_id]


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_request_is_put_aside_and_a_newer_one_stays(host: Host, kind: str) -> None:
    workflow_id = host.submit()
    host.ask("pause", workflow_id)
    path = host.person.request(Request(FORMAT, new_ulid(), workflow_id, "resume", "alice", now()))
    other = host.root.parent / "other.json"
    other.write_bytes(path.read_bytes().replace(workflow_id.encode(), new_ulid().encode()))
    good = host.submit()
    DAMAGE[kind](path, other)
    before = looks(path)
    orchestrator = host.begin()
    for _ in range(TICKS):
        orchestrator.scan_soon()
        orchestrator.tick()
    assert (host.state(good), host.state(workflow_id)) == ("succeeded", "paused")
    names = reading.list_names(host.person.rejected)
    if kind == "newer":
        assert (names, looks(path)) == ([], before)
    else:
        assert [name.endswith(path.name) for name in names] == [True]
        assert looks(host.person.rejected / names[0]) == before
        assert reading.list_names(host.person.requests) == []


@pytest.mark.parametrize("kind", [kind for kind in DAMAGE if kind != "of another"])  # its name alone says whose it is
def test_a_damaged_id_refuses_who_submits_it_and_nobody_else(host: Host, kind: str) -> None:
    host.submit(id="mine")
    host.submit(id="other")
    path = host.person.ids / "mine.json"
    damaged_beside_a_good_one(host, path, host.person.ids / "other.json", kind)
    with pytest.raises(Damaged, match=r"mine\.json is damaged"):
        host.submit(id="mine")
