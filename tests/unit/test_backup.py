"""Backup of a spool: what is in the file, and what is there if it fails."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from pathlib import Path

import msgspec
import pytest

from provisioning.clock import boot_id
from provisioning.core.identifiers import TASK_ID
from provisioning.core.states import TaskState
from provisioning.core.workflow import FORMAT, TaskCheckpoint
from provisioning.errors import Refused, SpoolUnusable
from provisioning.storage import backup, files
from provisioning.storage.backup import back_up, back_up_to
from provisioning.storage.check import check
from provisioning.storage.members import limit_of
from provisioning.storage.restore import restore
from provisioning.storage.spool import Spool
from tests.simulation.faults import failing
from tests.simulation.values import checkpoint
from tests.unit.backups import ONE, TWO, content, packed, unpacked, when_read


@pytest.fixture
def spool(under_way: Spool) -> Spool:
    return under_way


def test_what_was_backed_up_is_restored(spool: Spool, tmp_path: Path) -> None:
    copied = restore(io.BytesIO(packed(spool)), "b", tmp_path / "copy")
    assert (copied.workflows, copied.interrupted) == ({"queued": 1, "running": 1}, 1)
    here = {name: data for name, data in content(spool.root).items() if not name.startswith(("locks/", "tmp/"))}
    there = content(tmp_path / "copy")
    assert there.pop(f"workflows/{ONE}/logs/b.1.log") == b""  # without it, the attempt counts as never begun
    assert there == here
    assert check(tmp_path / "copy") == []


def test_members_are_of_nobody_in_one_order_and_nobody_else_may_read_them(spool: Spool) -> None:
    names = []
    for _ in range(2):
        with tarfile.open(fileobj=io.BytesIO(packed(spool))) as tar:
            infos = tar.getmembers()
        names.append([info.name for info in infos])
        assert {(info.mode, info.uid, info.uname, info.isreg()) for info in infos} == {(0o600, 0, "", True)}
    assert names[0] == names[1]
    assert names[0].index(f"workflows/{ONE}/tasks/b.json") < names[0].index(f"workflows/{ONE}/tasks/a.json")


def test_what_is_restored_belongs_to_its_owner_alone(spool: Spool, tmp_path: Path) -> None:
    copy = unpacked(packed(spool), tmp_path / "copy")
    modes = {(path.is_dir(), path.stat().st_mode & 0o777) for path in [copy.root, *copy.root.rglob("*")]}
    assert modes == {(True, 0o700), (False, 0o600)}


def test_a_packed_backup_is_restored_too(spool: Spool, tmp_path: Path) -> None:
    back_up_to(spool, tmp_path / "b.tgz", replace=False)
    assert (tmp_path / "b.tgz").read_bytes()[:2] == b"\x1f\x8b"
    assert (tmp_path / "b.tgz").stat().st_mode & 0o777 == 0o600
    with open(tmp_path / "b.tgz", "rb") as file:
        restore(file, "b.tgz", tmp_path / "copy")
    assert check(tmp_path / "copy") == []


def test_a_file_that_is_there_is_replaced_only_when_asked(spool: Spool, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    path.write_bytes(b"precious")
    with pytest.raises(Refused, match="there already"):
        back_up_to(spool, path, replace=False)
    assert path.read_bytes() == b"precious"
    back_up_to(spool, path, replace=True)
    assert tarfile.is_tarfile(path)
    with pytest.raises(Refused, match="no file"):
        back_up_to(spool, tmp_path, replace=True)
    with pytest.raises(Refused, match="in the spool itself"):
        back_up_to(spool, spool.root / "b.tar", replace=False)


@pytest.mark.parametrize("replace", [True, False])
def test_a_disk_that_refuses_the_last_sync_leaves_a_whole_backup(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    path = tmp_path / "out" / "b.tar"
    path.parent.mkdir()
    if replace:
        back_up_to(spool, path, replace=False)
    with monkeypatch.context() as patched:
        failing("fsync", OSError(errno.EIO, "broken"), patched, number=2)  # the file, then its folder
        with pytest.raises(SpoolUnusable, match=r"cannot be sure that the disk keeps .*/b\.tar"):
            back_up_to(spool, path, replace=replace)
    assert os.listdir(path.parent) == ["b.tar"]
    unpacked(path.read_bytes(), tmp_path / "copy").close()


def test_a_disk_that_refuses_the_bytes_leaves_the_old_backup(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out" / "b.tar"
    path.parent.mkdir()
    path.write_bytes(b"precious")
    failing("fsync", OSError(errno.EIO, "broken"), monkeypatch)
    with pytest.raises(SpoolUnusable):
        back_up_to(spool, path, replace=True)
    assert (os.listdir(path.parent), path.read_bytes()) == (["b.tar"], b"precious")


def test_a_file_that_appears_while_the_backup_is_made_is_not_replaced(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out" / "b.tar"
    path.parent.mkdir()
    when_read(monkeypatch, "submission.json", lambda: path.write_bytes(b"precious"))
    with pytest.raises(Refused, match="there already"):
        back_up_to(spool, path, replace=False)
    assert (os.listdir(path.parent), path.read_bytes()) == (["b.tar"], b"precious")


def test_a_backup_that_fails_leaves_nothing(spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SpoolUnusable("no")

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(backup, "back_up", fail)
    with pytest.raises(SpoolUnusable):
        back_up_to(spool, tmp_path / "out" / "b.tar", replace=False)
    assert os.listdir(tmp_path / "out") == []


def test_a_backup_takes_no_lock_and_writes_nothing_into_the_spool(spool: Spool) -> None:
    lock = spool.lock(ONE)
    before = sorted(spool.root.rglob("*"))
    assert packed(Spool.open(spool.root))
    assert sorted(spool.root.rglob("*")) == before
    assert lock is not None
    lock.release()


def test_what_is_no_file_of_the_format_is_named_and_left_out(spool: Spool, tmp_path: Path) -> None:
    (spool.workflows / ONE / "outcomes" / "a.1.json").unlink()
    os.mkfifo(spool.workflows / ONE / "outcomes" / "a.1.json")
    (spool.ids / "link.json").symlink_to("nightly.json")
    out = io.BytesIO()
    assert back_up(spool, out, compress=False).left_out == (f"workflows/{ONE}/outcomes/a.1.json", "ids/link.json")
    unpacked(out.getvalue(), tmp_path / "copy")
    assert [problem.code for problem in check(tmp_path / "copy")] == ["no-outcome"]


def test_damaged_files_are_copied_as_they_are(spool: Spool, tmp_path: Path) -> None:
    path = spool.workflows / ONE / "tasks" / "a.json"
    path.write_bytes(b"{half")
    copy = unpacked(packed(spool), tmp_path / "copy")
    assert (copy.workflows / ONE / "tasks" / "a.json").read_bytes() == b"{half"
    assert (copy.workflow(ONE).outcome_path("a", 1)).exists()
    copy.close()


def test_what_was_put_aside_is_copied(spool: Spool, tmp_path: Path) -> None:
    (spool.rejected / "20260101T000000Z-x").mkdir()
    (spool.rejected / "20260101T000000Z-x" / "reason.json").write_bytes(b"{}")
    (spool.rejected / f"{TWO}-{ONE}.{TWO}.json").write_bytes(b"damaged")
    copy = unpacked(packed(spool), tmp_path / "copy")
    assert content(copy.rejected) == content(spool.rejected)


# What a restored attempt counts as


@pytest.mark.parametrize("log", [True, False])
def test_an_attempt_that_ran_in_this_boot_has_its_log(spool: Spool, tmp_path: Path, log: bool) -> None:
    folder = spool.workflow(ONE)
    running = checkpoint("b", TaskState.RUNNING, None)
    attempt = msgspec.structs.replace(running.attempts[0], boot_id=boot_id(), worker=spool.scratch.path.name)
    folder.save_task(TaskCheckpoint(FORMAT, "b", TaskState.RUNNING, (attempt,)))
    if log:
        files.append(folder.log_path("b", 1), b"it began")
    copy = unpacked(packed(spool), tmp_path / "copy")
    assert copy.workflow(ONE).log_path("b", 1).read_bytes() == (b"it began" if log else b"")
    assert list(copy.tmp.glob(attempt.worker)) == []
    copy.close()


@pytest.mark.parametrize("data", [b"", b"{", b'{"format":1}', b"\xff"])
def test_what_is_damaged_is_copied_and_named(spool: Spool, tmp_path: Path, data: bytes) -> None:
    damaged = [
        f"workflows/{ONE}/{name}" for name in ("submission.json", "tasks/b.json", "workflow.json", "outcomes/a.1.json")
    ]
    damaged += [f"requests/{ONE}.{TWO}.json", f"incoming/{TWO}/submission.json", "ids/nightly.json"]
    for name in damaged:
        (spool.root / name).write_bytes(data)
    out = io.BytesIO()
    copied = back_up(spool, out, compress=False)
    assert sorted(copied.damaged) == sorted(damaged)
    assert copied.left_out == ()
    copy = unpacked(out.getvalue(), tmp_path / "copy")
    assert {name: (copy.root / name).read_bytes() for name in damaged} == dict.fromkeys(damaged, data)


def test_of_a_sound_spool_nothing_is_called_damaged(spool: Spool) -> None:
    assert back_up(spool, io.BytesIO(), compress=False).damaged == ()


@pytest.mark.parametrize("task_id", ["a", "web.1", "web.eu.1", "a.b.c.d.e", "a~undo", "web.eu.1~undo"])
def test_every_task_id_is_one_that_a_backup_knows(task_id: str) -> None:
    """Else the records of inner `for_each` tasks and of undos would stay behind, and their work be done again."""
    assert TASK_ID.match(task_id)
    for name in (f"tasks/{task_id}.json", f"outcomes/{task_id}.12.json", f"logs/{task_id}.12.log"):
        assert limit_of(f"workflows/{'0' * 26}/{name}") is not None
