"""Backup of a spool: what is in the file, and what happens meanwhile."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from provisioning.clock import boot_id
from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, AppliedRequest, Request, TaskCheckpoint, WorkflowCheckpoint
from provisioning.errors import Refused, SpoolUnusable
from provisioning.storage import backup, files, reading
from provisioning.storage.backup import back_up, back_up_to
from provisioning.storage.check import check
from provisioning.storage.checkpoint import encode
from provisioning.storage.restore import restore
from provisioning.storage.spool import Spool
from tests.simulation.faults import failing
from tests.simulation.values import EPOCH, checkpoint, record
from tests.unit.backups import ONE, TWO, content, finish, packed, spool_under_way, unpacked


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """One workflow under way, with `a` done and `b` running; one queued."""
    made = spool_under_way(tmp_path / "spool")
    yield made
    made.close()


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


# What happens while it is made


def when_read(monkeypatch: pytest.MonkeyPatch, name: str, deed: Callable[[], object]) -> None:
    """Do something once, right before a file of this name is read."""
    read = reading.read_regular
    done: list[Path] = []

    def disturbed(path: Path, limit: int) -> bytes:
        if path.name == name and not done:
            done.append(path)
            deed()
        return read(path, limit)

    monkeypatch.setattr(reading, "read_regular", disturbed)


def test_a_task_that_goes_on_meanwhile_is_never_ahead_of_what_it_waited_for(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`a` ends and `b` starts between the reading of the one and the other."""
    folder = spool.workflow(ONE)
    (folder.path / "tasks" / "b.json").unlink()
    (folder.path / "outcomes" / "a.1.json").unlink()
    folder.save_task(checkpoint("a", TaskState.RUNNING, None))

    def go_on() -> None:
        finish(spool, folder, "a", 1)
        folder.save_task(checkpoint("b", TaskState.RUNNING, None))

    when_read(monkeypatch, "a.json", go_on)
    copy = unpacked(packed(spool), tmp_path / "copy")
    assert {task.task_id: task.state for task in copy.workflow(ONE).tasks()} == {"a": TaskState.SUCCEEDED}
    assert check(copy.root) == []
    copy.close()


def test_an_outcome_that_no_copied_checkpoint_knows_is_not_copied(spool: Spool, tmp_path: Path) -> None:
    outcome = msgspec.structs.replace(record("b", Outcome.SUCCEEDED, 2), workflow_id=ONE)
    files.write_once(spool.workflow(ONE).outcome_path("b", 2), encode(outcome), scratch=spool.scratch)
    copy = unpacked(packed(spool), tmp_path / "copy")
    assert sorted(os.listdir(copy.workflows / ONE / "outcomes")) == ["a.1.json"]


@pytest.mark.parametrize("seen", ["before", "after"])
def test_a_request_that_is_applied_meanwhile_is_copied_with_what_it_changed(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    """A retry reopens the tasks first; only then is the workflow's checkpoint written, and the request removed."""
    folder = spool.workflow(ONE)
    failed = WorkflowCheckpoint(FORMAT, ONE, WorkflowState.FAILED, "alice", EPOCH, "boot-1")
    folder.save_workflow(failed)
    folder.save_task(checkpoint("b", TaskState.FAILED, Outcome.FAILED))
    request = Request(FORMAT, TWO, ONE, "retry", "alice", EPOCH)

    def half() -> None:
        spool.request(request)
        folder.save_task(checkpoint("b", TaskState.PENDING, Outcome.FAILED))

    def whole() -> None:
        half()
        applied = AppliedRequest(TWO, "retry", "alice", EPOCH)
        folder.save_workflow(msgspec.structs.replace(failed, state=WorkflowState.RUNNING, applied=(applied,)))
        files.remove(spool.requests / f"{ONE}.{TWO}.json")

    when_read(monkeypatch, "b.json", half if seen == "before" else whole)
    copy = unpacked(packed(spool), tmp_path / "copy")
    copied = copy.workflow(ONE).workflow()
    assert copied is not None
    if seen == "before":
        assert (copied.state, [asked for _, asked in copy.pending_requests()]) == (WorkflowState.FAILED, [request])
    else:
        assert (copied.state, len(copied.applied)) == (WorkflowState.RUNNING, 1)
    assert copy.workflow(ONE).task("b").state is TaskState.PENDING
    copy.close()


def test_a_workflow_that_never_rests_is_said_to(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = spool.workflow(ONE)
    read = reading.read_regular
    reads: list[Path] = []

    def restless(path: Path, limit: int) -> bytes:
        if path.name == "workflow.json":
            reads.append(path)
            state = WorkflowState.PAUSED if len(reads) % 2 else WorkflowState.RUNNING
            folder.save_workflow(WorkflowCheckpoint(FORMAT, ONE, state, "alice", EPOCH, "boot-1"))
        return read(path, limit)

    monkeypatch.setattr(reading, "read_regular", restless)
    with pytest.raises(SpoolUnusable, match=f"{ONE} changed"):
        packed(spool)


def test_a_workflow_that_is_claimed_meanwhile_is_there_once(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    when_read(monkeypatch, "manifest.json", lambda: spool.claim(TWO))
    copy = unpacked(packed(spool), tmp_path / "copy")
    assert (copy.incoming_ids(), copy.claimed_ids()) == ([], [ONE, TWO])


def test_a_workflow_that_is_claimed_after_its_copy_is_there_once(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    when_read(monkeypatch, "workflow.json", lambda: spool.claim(TWO))
    copy = unpacked(packed(spool), tmp_path / "copy")
    assert (copy.incoming_ids(), copy.claimed_ids()) == ([TWO], [ONE])


@pytest.mark.parametrize("name", ["submission.json", "b.json", "outcomes"])
def test_a_workflow_that_is_cleaned_up_meanwhile_is_absent(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def clean() -> None:
        if spool.claimed_ids() == [ONE]:
            spool.forget(ONE)

    if name == "outcomes":  # it is gone when its checkpoints were copied, and its outcomes were not
        listed = reading.list_names

        def listing(path: Path, *, folders: bool = False) -> list[str]:
            if path.name == "outcomes":
                clean()
            return listed(path, folders=folders)

        monkeypatch.setattr(reading, "list_names", listing)
    else:
        spool.incoming.joinpath(TWO, "submission.json").rename(tmp_path / "aside")
        when_read(monkeypatch, name, clean)
    copy = unpacked(packed(spool), tmp_path / "copy")
    assert copy.claimed_ids() == []


@pytest.mark.parametrize("place", ["incoming", "workflows"])
def test_a_workflow_whose_operations_go_with_it_meanwhile_is_absent(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """It was copied when a cleanup removes it and then, as no plan names them any more, its operations."""
    if place == "incoming":  # whoever wanted to claim it died after the plan, and another claims it meanwhile
        (spool.workflows / ONE).rename(spool.incoming / ONE)
    below = backup._below

    def cleaning(folder: Path) -> Iterator[Path]:
        if folder == spool.nulib / "digest":
            if place == "incoming":
                spool.claim(ONE)
            spool.forget(ONE)
            files.remove_tree(folder)
        return below(folder)

    monkeypatch.setattr(backup, "_below", cleaning)
    out = io.BytesIO()
    copied = back_up(spool, out, compress=False)
    assert (copied.workflows, copied.interrupted) == ({"queued": 1}, 0)
    copy = unpacked(out.getvalue(), tmp_path / "copy")
    assert (copy.workflow_ids(), check(copy.root)) == ([TWO], [])
    copy.close()


def test_a_workflow_that_is_rejected_after_its_copy_is_there_once(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = backup._below

    def rejecting(folder: Path) -> Iterator[Path]:
        if folder == spool.ids:
            (spool.incoming / TWO).rename(spool.rejected / f"20260101T000000Z-{TWO}")
        return below(folder)

    monkeypatch.setattr(backup, "_below", rejecting)
    copy = unpacked(packed(spool), tmp_path / "copy")
    assert (copy.incoming_ids(), os.listdir(copy.rejected)) == ([TWO], [])
    copy.close()


@pytest.mark.parametrize(("change", "copied"), [(b"and more", b"said"), (None, bytes(4))])
def test_a_log_that_grows_or_shrinks_meanwhile_has_the_size_it_had(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: bytes | None, copied: bytes
) -> None:
    log = spool.workflow(ONE).log_path("a", 1)
    looks: list[int] = []
    look = os.fstat

    def changing(descriptor: int) -> os.stat_result:
        status = look(descriptor)
        if os.path.samestat(status, os.stat(log)):
            looks.append(descriptor)
            if len(looks) == 2:  # the first is for its kind, this one for its size
                files.append(log, change) if change else os.truncate(log, 0)
        return status

    monkeypatch.setattr(os, "fstat", changing)
    data = packed(spool)
    monkeypatch.undo()
    copy = unpacked(data, tmp_path / "copy")
    assert copy.workflow(ONE).log_path("a", 1).read_bytes() == copied
    copy.close()


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
