"""The spool: opening, submitting, claiming, locks, requests; and what a crash between two steps leaves."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import msgspec
import pytest

from provisioning.core.identifiers import Process
from provisioning.core.workflow import FORMAT, Request
from provisioning.errors import InvalidManifest, NotFound, OrchestratorUnusable, Problem, Refused, SpoolUnusable
from provisioning.processes import own_identity
from provisioning.storage import files
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import FOLDERS, Lock, OrchestratorRecord, Spool
from tests.simulation.values import EPOCH, submission

ONE, TWO = "01kc0000000000000000000001", "01kc0000000000000000000002"
MANIFEST = b'{"schema": 1}'


class PowerCut(BaseException):
    """The process ends here."""


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool.create(tmp_path / "spool")
    yield made
    made.close()


def another(spool: Spool) -> Spool:
    """The same spool as another process has it."""
    return Spool.open(spool.root)


def submit(spool: Spool, workflow_id: str = ONE, **rest: Any) -> str:
    return spool.submit(MANIFEST, "json", submission(workflow_id, **rest))


def crash(spool: Spool, monkeypatch: pytest.MonkeyPatch, call: str, deed: Callable[[], object]) -> None:
    """Do the deed up to its use of files.`call`; the process that did it is gone then."""

    def end(*_args: Any, **_rest: Any) -> None:
        raise PowerCut

    with monkeypatch.context() as patched:
        patched.setattr(files, call, end)
        with pytest.raises(PowerCut):
            deed()
    os.close(spool.scratch._descriptor)
    spool._scratch = None


# Opening


def test_create_makes_all_and_does_no_harm_twice(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path / "deep" / "spool")
    assert {*FOLDERS, "format"} == set(os.listdir(spool.root))
    assert (spool.root / "format").read_text() == f"{FORMAT}\n"
    assert {os.stat(spool.root / name).st_mode & 0o777 for name in FOLDERS} == {0o700}
    submit(spool)
    (spool.root / "rejected").rmdir()
    assert Spool.create(spool.root).workflow_ids() == [ONE]
    spool.close()


def damage_format(root: Path) -> None:
    (root / "format").write_text("2\n")


def damage_kind(root: Path) -> None:
    (root / "format").unlink()
    (root / "format").mkdir()


def damage_folder(root: Path) -> None:
    (root / "requests").rmdir()


def damage_link(root: Path) -> None:
    (root / "format").rename(root / "other")
    (root / "format").symlink_to("other")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_format, "format '2', this version works format 1"),
        (damage_kind, "not a regular file"),
        (damage_folder, "lacks requests"),
        (damage_link, "Too many levels"),
        (lambda root: (root / "format").write_bytes(b"\xff\xfe"), "has format"),
        (lambda root: (root / "format").write_bytes(b"1" * 100), "larger than"),
    ],
)
def test_open_says_what_is_wrong(spool: Spool, damage: Callable[[Path], object], message: str) -> None:
    damage(spool.root)
    with pytest.raises(SpoolUnusable, match=message) as raised:
        Spool.open(spool.root)
    assert raised.value.hint


@pytest.mark.parametrize("kind", ["missing", "file", "below a file"])
def test_there_is_no_spool(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = {"missing": tmp_path / "no", "file": tmp_path / "file", "below a file": tmp_path / "file" / "x"}[kind]
    with pytest.raises(SpoolUnusable, match="there is no spool at"):
        Spool.open(path)
    if kind != "missing":
        with pytest.raises(SpoolUnusable, match="cannot make"):
            Spool.create(path)


def test_nothing_is_made_in_a_spool_of_a_newer_format(spool: Spool) -> None:
    damage_format(spool.root)
    damage_folder(spool.root)
    with pytest.raises(SpoolUnusable, match="has format '2'"):
        Spool.create(spool.root)
    assert not (spool.root / "requests").exists()


@pytest.mark.root
def test_a_spool_belongs_to_one_user(spool: Spool) -> None:
    os.chown(spool.root, 65534, 65534)
    damage_folder(spool.root)
    for use in (Spool.open, Spool.create):
        with pytest.raises(SpoolUnusable, match="belongs to uid 65534, this process is uid 0"):
            use(spool.root)
    assert not (spool.root / "requests").exists()


AS_NOBODY = """
import os, sys, pathlib
from provisioning.storage.spool import Spool
from provisioning.errors import SpoolUnusable
os.setgid(65534)
os.setuid(65534)
try:
    Spool.open(pathlib.Path(sys.argv[1])).scratch
except SpoolUnusable as error:
    print(error.message, error.hint, sep=" | ")
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("mode", "message"),
    [(0o700, ""), (0o500, "Permission denied | the spool must belong"), (0o000, "cannot read")],
)
def test_a_spool_that_cannot_be_written_or_read(mode: int, message: str) -> None:
    with tempfile.TemporaryDirectory() as place:  # not below tmp_path, which nobody else may enter
        os.chmod(place, 0o711)
        spool = Spool.create(Path(place) / "spool")
        for path in [spool.root, spool.root / "format", *(spool.root / name for name in FOLDERS)]:
            os.chown(path, 65534, 65534)
        spool.tmp.chmod(mode)
        spool.root.chmod(mode)
        argv = [sys.executable, "-c", AS_NOBODY, str(spool.root)]
        child = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert message in child.stdout
    assert bool(message) is bool(child.stdout)


# Submitting


def test_submit_appears_complete_and_leaves_nothing_behind(spool: Spool) -> None:
    assert submit(spool) == ONE
    assert sorted(os.listdir(spool.incoming / ONE)) == ["manifest.json", "submission.json"]
    folder = spool.find(ONE)
    assert folder.submission() == submission(ONE)
    assert folder.manifest() == (MANIFEST, "json")
    assert os.listdir(spool.scratch.path) == []


@pytest.mark.parametrize("call", ["write_new", "sync_dir", "move"])
def test_a_crash_before_the_rename_submits_nothing(spool: Spool, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    crash(spool, monkeypatch, call, lambda: submit(spool))
    assert os.listdir(spool.incoming) == []
    files.sweep_scratch(spool.tmp)
    assert os.listdir(spool.tmp) == []


def test_what_is_submitted_is_on_the_disk_before_it_appears(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    sync, move = os.fsync, files.move

    def note(descriptor: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    def moved(source: Path, target: Path) -> None:
        assert synced == ["manifest.json", "submission.json", source.name]
        move(source, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(files, "move", moved)
    submit(spool)
    assert synced[3:] == ["incoming", spool.scratch.path.name]


def test_the_same_id_with_the_same_bytes_is_the_same_workflow(spool: Spool) -> None:
    assert submit(spool, ONE, id="nightly") == ONE
    assert submit(spool, TWO, id="nightly") == ONE
    spool.claim(ONE)
    assert submit(spool, TWO, id="nightly") == ONE
    assert (spool.incoming_ids(), spool.claimed_ids()) == ([], [ONE])


@pytest.mark.parametrize("change", [{"digest": "1" * 64}, {"operator": "bob"}])
def test_the_same_id_with_other_bytes_or_of_another_is_refused(spool: Spool, change: dict[str, str]) -> None:
    submit(spool, ONE, id="nightly")
    with pytest.raises(Refused, match=f"the id 'nightly' is workflow {ONE} of alice"):
        submit(spool, TWO, id="nightly", **change)
    assert spool.workflow_ids() == [ONE]


@pytest.mark.parametrize("call", ["make_dir", "write_new", "move"])
def test_a_crash_after_the_reservation_is_made_good_by_submitting_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    original = files.write_once

    def reserve(*args: Any, **rest: Any) -> bool:
        try:
            return original(*args, **rest)
        finally:
            monkeypatch.setattr(files, call, lambda *_a, **_r: (_ for _ in ()).throw(PowerCut))

    with monkeypatch.context() as patched:
        kept = getattr(files, call)
        patched.setattr(files, "write_once", reserve)
        with pytest.raises(PowerCut):
            submit(spool, ONE, id="nightly")
    monkeypatch.setattr(files, call, kept)
    assert (os.listdir(spool.ids), spool.workflow_ids()) == (["nightly.json"], [])
    later = another(spool)
    assert submit(later, TWO, id="nightly") == ONE
    assert later.find(ONE).submission().workflow_id == ONE
    later.close()


def test_the_id_stays_taken_after_cleanup(spool: Spool) -> None:
    submit(spool, ONE, id="nightly")
    spool.claim(ONE)
    spool.forget(ONE)
    assert (spool.workflow_ids(), sorted(os.listdir(spool.ids))) == ([], [f"{ONE}.cleaned", "nightly.json"])
    assert submit(spool, TWO, id="nightly") == ONE
    assert spool.workflow_ids() == []
    with pytest.raises(Refused):
        submit(spool, TWO, id="nightly", digest="1" * 64)


def test_without_an_id_cleanup_leaves_nothing(spool: Spool) -> None:
    submit(spool)
    spool.claim(ONE)
    spool.forget(ONE)
    assert [os.listdir(path) for path in (spool.ids, spool.workflows, spool.scratch.path)] == [[], [], []]


def test_two_who_submit_one_id_at_once_make_one_workflow(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is stopped between its reservation and its rename; then the second comes."""
    make_dir = files.make_dir
    first_is_there, go_on = threading.Event(), threading.Event()

    def slow(path: Path, mode: int = 0o700) -> None:
        if not first_is_there.is_set():
            first_is_there.set()
            go_on.wait(20)
        make_dir(path, mode)

    monkeypatch.setattr(files, "make_dir", slow)
    found: list[str] = []
    second = another(spool)
    threads = [
        threading.Thread(target=lambda: found.append(submit(spool, ONE, id="nightly"))),
        threading.Thread(target=lambda: found.append(submit(second, TWO, id="nightly"))),
    ]
    threads[0].start()
    assert first_is_there.wait(20)
    threads[1].start()
    threads[1].join(0.2)
    assert found == []
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert found == [ONE, ONE]
    assert spool.workflow_ids() == [ONE]
    second.close()


@pytest.mark.parametrize("lost", ["incoming", "locks"])
def test_a_spool_that_lost_a_folder_says_so(spool: Spool, lost: str) -> None:
    (spool.root / lost).rmdir()
    with pytest.raises(SpoolUnusable, match=lost):
        submit(spool, id="nightly")


# Locks and claims


def test_a_lock_has_one_holder(spool: Spool) -> None:
    submit(spool)
    first = spool.lock(ONE)
    assert first is not None
    assert another(spool).lock(ONE) is None
    spool.claim(ONE)  # the lock goes along
    assert spool.lock(ONE) is None
    first.release()
    first.release()
    again = another(spool).lock(ONE)
    assert again is not None
    again.release()


def test_nobody_can_lock_what_is_not_there(spool: Spool) -> None:
    assert spool.lock(ONE) is None
    assert not (spool.workflows / ONE).exists()


@pytest.mark.parametrize("what", ["claimed", "cleaned"])
def test_a_workflow_that_goes_while_it_is_locked_is_not_made_anew(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    submit(spool)
    if what == "cleaned":
        spool.claim(ONE)
    take = Lock.take

    def late(self: Lock, **rest: Any) -> bool:
        monkeypatch.setattr(Lock, "take", take)
        spool.claim(ONE) if what == "claimed" else spool.forget(ONE)
        return take(self, **rest)

    monkeypatch.setattr(Lock, "take", late)
    assert another(spool).lock(ONE) is None
    assert spool.incoming_ids() == []
    assert spool.claimed_ids() == ([ONE] if what == "claimed" else [])


def test_a_workflow_claimed_just_before_its_lock_was_got_is_left_to_its_claimer(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(spool)
    original = filelock.lock_descriptor

    def late(descriptor: int, *, blocking: bool) -> bool:
        spool.claim(ONE)
        return original(descriptor, blocking=blocking)

    with monkeypatch.context() as patched:
        patched.setattr(filelock, "lock_descriptor", late)
        assert another(spool).lock(ONE) is None
    lock = another(spool).lock(ONE)
    assert lock is not None
    lock.release()


def test_a_lock_file_that_was_replaced_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = filelock.lock_descriptor

    def late(descriptor: int, *, blocking: bool) -> bool:
        (tmp_path / "lock").unlink()
        (tmp_path / "lock").touch()
        return original(descriptor, blocking=blocking)

    with monkeypatch.context() as patched:
        patched.setattr(filelock, "lock_descriptor", late)
        assert not Lock(tmp_path / "lock").take()
    lock = Lock(tmp_path / "lock")
    assert lock.take()
    lock.release()


def test_a_lock_goes_with_its_process(spool: Spool) -> None:
    submit(spool)
    program = (
        "import os, sys, pathlib; from provisioning.storage.spool import Spool;"
        "kept = Spool.open(pathlib.Path(sys.argv[1])).lock(sys.argv[2]); print(bool(kept), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(spool.root), ONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"True\n"
        assert spool.lock(ONE) is None
        child.kill()
        child.wait(20)
    lock = spool.lock(ONE)
    assert lock is not None
    lock.release()


def test_claim_moves_and_replaces_nothing(spool: Spool) -> None:
    submit(spool)
    folder = spool.claim(ONE)
    assert (folder.path, spool.incoming_ids(), spool.claimed_ids()) == (spool.workflows / ONE, [], [ONE])
    submit(spool)
    with pytest.raises(SpoolUnusable, match="not empty"):
        spool.claim(ONE)


def test_reject_keeps_the_file_and_says_why(spool: Spool) -> None:
    submit(spool)
    error = InvalidManifest([Problem("unknown-operation", "no operation is called 'x'", field="tasks[0].operation")])
    target = spool.reject(WorkflowFolder(spool.incoming / ONE), error)
    assert target.parent == spool.rejected
    assert target.name.endswith(ONE)
    assert (target / "manifest.json").read_bytes() == MANIFEST
    reason = msgspec.json.decode((target / "reason.json").read_bytes())
    assert (reason["code"], reason["problems"][0]["code"]) == ("invalid-manifest", "unknown-operation")
    assert spool.workflow_ids() == []


# Looking


def test_find_by_prefix(spool: Spool) -> None:
    submit(spool, ONE)
    submit(spool, TWO)
    spool.claim(TWO)
    assert spool.find(ONE).path == spool.incoming / ONE
    assert spool.find(TWO).path == spool.workflows / TWO
    submit(spool, "01kd0000000000000000000001")
    assert spool.find("01kd").workflow_id == "01kd0000000000000000000001"
    for prefix, message in [
        ("01kc", "begins 2 workflow ids"),
        ("", "no workflow ''"),
        ("x", "no workflow 'x'"),
        ("../workflows/" + TWO, "no workflow"),
        (ONE + "\n", "no workflow"),
    ]:
        with pytest.raises(NotFound, match=message):
            spool.find(prefix)


def test_foreign_names_are_no_workflows(spool: Spool) -> None:
    for name in ("README", ONE.upper(), ONE + ".bak", "." + ONE):
        (spool.incoming / name).mkdir()
        (spool.workflows / name).mkdir()
    assert spool.workflow_ids() == []


# Requests


def request(request_id: str, workflow_id: str = ONE, **rest: Any) -> Request:
    return Request(FORMAT, request_id, workflow_id, "cancel", "alice", EPOCH, **rest)


def test_requests_come_oldest_first_and_each_for_its_workflow(spool: Spool) -> None:
    for request_id, workflow_id in [("03", ONE), ("01", TWO), ("02", ONE)]:
        spool.request(request(request_id, workflow_id))
    assert [found.request_id for _, found in spool.pending_requests()] == ["01", "02", "03"]
    assert [found.request_id for _, found in spool.requests_of(ONE)] == ["02", "03"]


def test_a_damaged_request_is_set_aside_and_stops_no_other(spool: Spool) -> None:
    spool.request(request("05"))
    good = msgspec.json.encode(request("04"))
    damaged = {
        f"{ONE}.01.json": good[:-10],
        f"{ONE}.02.json": b"\xff\xfe",
        f"{ONE}.03.json": good.replace(b'"format":1', b'"format":2'),
        "no-dots.json": b"[" * 100_000,
        f"{ONE}.06.json": b"",
    }
    for name, data in damaged.items():
        (spool.requests / name).write_bytes(data)
    (spool.requests / f"{ONE}.07.json").mkdir()
    (spool.requests / f"{ONE}.08.json").symlink_to(spool.root / "format")
    os.mkfifo(spool.requests / f"{ONE}.09.json")
    assert [found.request_id for _, found in spool.pending_requests()] == ["05"]
    assert os.listdir(spool.requests) == [f"{ONE}.05.json"]
    kept = {name.partition("-")[2]: spool.rejected / name for name in os.listdir(spool.rejected)}
    assert {name: kept[name].read_bytes() for name in damaged} == damaged
    assert len(kept) == len(damaged) + 3


def test_a_request_that_somebody_applies_meanwhile_is_passed_over(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.request(request("01"))
    names = files.list_names(spool.requests)
    files.remove(spool.requests / names[0])
    monkeypatch.setattr(files, "list_names", lambda _path: names)
    assert list(spool.pending_requests()) == []


def test_a_nudge_leaves_nothing_and_needs_nothing(spool: Spool) -> None:
    spool.nudge()
    assert os.listdir(spool.requests) == []
    spool.requests.rmdir()
    spool.nudge()


# The orchestrator


def test_there_is_one_orchestrator_and_the_second_is_told_who(spool: Spool) -> None:
    lock = spool.take_orchestrator_lock()
    with pytest.raises(OrchestratorUnusable, match="held by another process"):
        another(spool).take_orchestrator_lock()
    record = OrchestratorRecord(FORMAT, own_identity(), "wuji", EPOCH, "0.1.0", 10)
    spool.save_orchestrator_record(record)
    with pytest.raises(OrchestratorUnusable, match=rf"held by pid {os.getpid()} on wuji since 2026-01-01 00:00:00 UTC"):
        another(spool).take_orchestrator_lock()
    assert spool.running_orchestrator() == record
    lock.release()
    another(spool).take_orchestrator_lock().release()


@pytest.mark.parametrize("data", [b"", b"{", b'{"format": 2}'])
def test_a_damaged_or_dead_record_says_nothing(spool: Spool, data: bytes) -> None:
    dead = OrchestratorRecord(FORMAT, Process("boot-0", 1, 1), "wuji", EPOCH, "0.1.0", 10)
    spool.save_orchestrator_record(dead)
    assert spool.running_orchestrator() is None
    (spool.root / "orchestrator.json").write_bytes(data)
    assert spool.orchestrator_record() is None


def test_no_look_takes_a_lock(spool: Spool) -> None:
    """A reader that tried a lock, for however short, could make its holder-to-be give up."""
    submit(spool)
    spool.claim(ONE)
    taken: list[object] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fcntl, "flock", lambda *args: taken.append(args))
        patched.setattr(filelock, "lock_descriptor", lambda *args, **_rest: taken.append(args))
        spool.find(ONE).submission()
        spool.running_orchestrator()
        with contextlib.suppress(NotFound):
            spool.find("x")
        assert spool.workflow_ids() == [ONE]
    assert taken == []
