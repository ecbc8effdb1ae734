"""Backup of a spool that is worked meanwhile: each thing that may happen, at the moment that matters."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, AppliedRequest, Request, WorkflowCheckpoint
from provisioning.errors import SpoolUnusable
from provisioning.storage import backup, files, reading
from provisioning.storage.backup import back_up
from provisioning.storage.check import check
from provisioning.storage.checkpoint import encode
from provisioning.storage.naming import StrPath
from provisioning.storage.spool import Spool
from tests.simulation.values import EPOCH, NULIB, checkpoint, record
from tests.unit.backups import ONE, TWO, finish, packed, unpacked, when_read


@pytest.fixture
def spool(under_way: Spool) -> Spool:
    return under_way


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

    def restless(path: StrPath, limit: int) -> bytes:
        if Path(path).name == "workflow.json":
            reads.append(Path(path))
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
        if folder == spool.nulib / NULIB:
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
