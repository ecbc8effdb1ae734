"""Backup and restore of a spool: what is in the file, what happens meanwhile, and which files are refused."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from provisioning.clock import boot_id
from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, AppliedRequest, Plan, Request, TaskCheckpoint, WorkflowCheckpoint
from provisioning.errors import ProvisioningError, Refused, SpoolUnusable
from provisioning.storage import backup, files, reading
from provisioning.storage.backup import back_up, back_up_to
from provisioning.storage.check import check
from provisioning.storage.checkpoint import WorkflowFolder, encode
from provisioning.storage.restore import HEADER_BYTES, NoBackup, restore
from provisioning.storage.spool import Spool
from tests.simulation.values import EPOCH, checkpoint, graph, record, submission

ONE, TWO = (f"01kc000000000000000000000{number}" for number in (1, 2))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """One workflow under way, with `a` done and `b` running; one queued."""
    made = Spool.create(tmp_path / "spool")
    digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # of {}
    for workflow_id, asked in ((ONE, None), (TWO, "nightly")):
        made.submit(b"{}", "json", submission(workflow_id, id=asked, digest=digest))
    folder = made.claim(ONE)
    folder.prepare()
    folder.save_plan(Plan(FORMAT, ONE, graph(["a:", "b: a"]), {}, "digest"))
    folder.save_workflow(WorkflowCheckpoint(FORMAT, ONE, WorkflowState.RUNNING, "alice", EPOCH, "boot-1"))
    finish(made, folder, "a", 1)
    folder.save_task(checkpoint("b", TaskState.RUNNING, None))
    files.append(folder.log_path("a", 1), b"said")
    folder.append_event({"event": "x"})
    files.publish_tree({"tree/a.nu": b"", "catalogue.json": b"{}"}, made.nulib / "digest", made.scratch)
    yield made
    made.close()


def finish(spool: Spool, folder: WorkflowFolder, task_id: str, number: int) -> None:
    """The attempt succeeds."""
    outcome = msgspec.structs.replace(record(task_id, Outcome.SUCCEEDED, number), workflow_id=folder.workflow_id)
    files.write_once(folder.outcome_path(task_id, number), encode(outcome), scratch=spool.scratch)
    folder.save_task(checkpoint(task_id, TaskState.SUCCEEDED, Outcome.SUCCEEDED))


def packed(spool: Spool) -> bytes:
    out = io.BytesIO()
    back_up(spool, out, compress=False)
    return out.getvalue()


def unpacked(data: bytes, target: Path) -> Spool:
    restore(io.BytesIO(data), "backup.tar", target)
    return Spool.open(target)


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


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
        listed = files.list_names

        def listing(path: Path, *, folders: bool = False) -> list[str]:
            if path.name == "outcomes":
                clean()
            return listed(path, folders=folders)

        monkeypatch.setattr(files, "list_names", listing)
    else:
        spool.incoming.joinpath(TWO, "submission.json").rename(tmp_path / "aside")
        when_read(monkeypatch, name, clean)
    copy = unpacked(packed(spool), tmp_path / "copy")
    assert copy.claimed_ids() == []


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


# Files that are no backup


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, data in members:
            info.size = info.size or len(data)
            tar.addfile(info, io.BytesIO(data) if data else None)
    return out.getvalue()


def member(name: str, data: bytes = b"", **more: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


FIRST = member("format", b"1\n")
HOSTILE = {
    "nothing": b"",
    "no tar": b"x" * 20_000,
    "no spool": tar_of(member("etc/passwd", b"x")),
    "a newer format": tar_of(member("format", b"2\n")),
    "an absolute name": tar_of(FIRST, member("/etc/cron.d/x", b"x")),
    "a name upwards": tar_of(FIRST, member("workflows/../../x", b"x")),
    "upwards in a tree": tar_of(FIRST, member("nulib/d/tree/../../../../x", b"x")),
    "upwards in rejected": tar_of(FIRST, member("rejected/../x", b"x")),
    "a foreign name": tar_of(FIRST, member("drop/x", b"x")),
    "an orchestrator's record": tar_of(FIRST, member("orchestrator.json", b"{}")),
    "a scratch folder": tar_of(FIRST, member(f"tmp/{ONE}/process", b"{}")),
    "a link": tar_of(FIRST, member("rejected/x", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "a hard link": tar_of(FIRST, member("rejected/x", type=tarfile.LNKTYPE, linkname="/etc/passwd")),
    "a device": tar_of(FIRST, member("rejected/x", type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    "a FIFO": tar_of(FIRST, member("rejected/x", type=tarfile.FIFOTYPE)),
    "a folder": tar_of(FIRST, member("rejected/x", type=tarfile.DIRTYPE)),
    "a sparse file": tar_of(FIRST, member("rejected/x", type=tarfile.GNUTYPE_SPARSE)),
    "a name twice": tar_of(FIRST, member("rejected/x", b"1"), member("rejected/x", b"2")),
    "a file as a folder": tar_of(FIRST, member("rejected/x", b"1"), member("rejected/x/y", b"2")),
    "a long name": tar_of(FIRST, member("rejected/" + "x" * 300, b"1")),
    "a NUL in a name": tar_of(FIRST, member("format", b"1\n", pax_headers={"path": "rejected/a\0b"})),
    "a huge record": tar_of(FIRST, member(f"requests/{ONE}.{TWO}.json", size=5 << 20)),
    "a huge file": tar_of(FIRST, member("rejected/x", size=1 << 39)),
    "a size below zero": tar_of(FIRST, member("rejected/x", b"1", pax_headers={"size": "-5"})),
    "no end": tar_of(FIRST, member("rejected/x", b"1")),
    "a foreign end": tar_of(FIRST, member("backup.json", b"[]")),
    "something after its end": tar_of(FIRST, member("backup.json", b"{}"), member("rejected/x", b"1")),
    "a wrong packing": b"\x1f\x8b" + b"x" * 100,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_backup_is_refused_and_leaves_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "site").mkdir()
    with pytest.raises(SpoolUnusable) as caught:
        restore(io.BytesIO(data), "b.tar", tmp_path / "site" / "copy")
    assert "b.tar" in str(caught.value) or "copy" in str(caught.value)
    assert os.listdir(tmp_path / "site") == []


def test_a_huge_header_does_not_fill_the_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 32
    data = tar_of(FIRST)[:1024] + header.tobuf(tarfile.USTAR_FORMAT)
    given = 0

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            nonlocal given
            out = (data + bytes(size))[given : given + size] or bytes(size)
            given += len(out)
            return out

    with pytest.raises(NoBackup, match="header"):
        restore(Endless(), "b.tar", tmp_path / "copy")  # type: ignore[arg-type]
    assert given < 2 * HEADER_BYTES


def test_a_bomb_is_refused_by_what_it_says_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = gzip.compress(tar_of(FIRST, member("rejected/x", size=1 << 39)))
    with pytest.raises(NoBackup, match="does not fit"):
        restore(io.BytesIO(bomb), "b.tgz", tmp_path / "copy")


@pytest.mark.parametrize("compress", [False, True])
def test_a_backup_that_is_cut_off_anywhere_is_refused(spool: Spool, tmp_path: Path, compress: bool) -> None:
    out = io.BytesIO()
    back_up(spool, out, compress=compress)
    data = out.getvalue()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        last = tar.getmember("backup.json")
        bounds = {info.offset for info in tar} | {info.offset_data for info in tar}
    whole = len(data) if compress else last.offset_data + last.size
    cuts = range(0, len(data), 97) if compress else sorted({*range(0, whole, 1021), *bounds, whole - 1})
    for cut in cuts:
        with pytest.raises(SpoolUnusable):
            restore(io.BytesIO(data[:cut]), "b.tar", tmp_path / "copy")
    assert os.listdir(tmp_path) == ["spool"]


def test_a_changed_byte_is_found(spool: Spool, tmp_path: Path) -> None:
    data = packed(spool)
    changed = data.replace(b"said", b"sad!")
    assert changed != data
    with pytest.raises(NoBackup, match="digest"):
        restore(io.BytesIO(changed), "b.tar", tmp_path / "copy")


@pytest.mark.parametrize("there", ["file", "full", "spool", "link"])
def test_what_is_there_is_refused(spool: Spool, tmp_path: Path, there: str) -> None:
    target = tmp_path / "copy"
    if there == "file":
        target.write_bytes(b"x")
    elif there == "link":
        target.symlink_to(spool.root)
    else:
        target.mkdir()
        (target / ("format" if there == "spool" else "x")).write_bytes(b"1\n")
    before = content(tmp_path)
    with pytest.raises(Refused):
        restore(io.BytesIO(packed(spool)), "b.tar", target)
    assert content(tmp_path) == before


def test_an_empty_folder_becomes_the_spool(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    assert unpacked(packed(spool), tmp_path / "copy").claimed_ids() == [ONE]


def test_a_full_disk_leaves_nothing(spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed(spool)
    (tmp_path / "site").mkdir()

    def full(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync_dir", full)
    with pytest.raises((OSError, ProvisioningError)):
        restore(io.BytesIO(data), "b.tar", tmp_path / "site" / "copy")
    assert os.listdir(tmp_path / "site") == []
