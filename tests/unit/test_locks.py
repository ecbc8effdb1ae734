"""The spool in use: locks, claims, finding, requests, and the one orchestrator."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import filelock
import msgspec
import pytest

from provisioning.core.identifiers import Resident
from provisioning.core.workflow import FORMAT, Request
from provisioning.errors import InvalidManifest, NotFound, OrchestratorUnusable, Problem, SpoolUnusable
from provisioning.processes import resident
from provisioning.storage import files, reading
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.lock import Lock
from provisioning.storage.spool import OrchestratorRecord, Spool
from tests.simulation.values import EPOCH, MANIFEST, ONE, TWO, submission


def another(spool: Spool) -> Spool:
    """The same spool as another process has it."""
    return Spool.open(spool.root)


def submit(spool: Spool, workflow_id: str = ONE, **rest: Any) -> str:
    return spool.submit(MANIFEST, "json", submission(workflow_id, **rest))


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


ASKED = "01kc000000000000000000000"
"""A request_id but for its last digit."""


def request(request_id: str, workflow_id: str = ONE, **rest: Any) -> Request:
    return Request(FORMAT, request_id, workflow_id, "cancel", "alice", EPOCH, **rest)


def test_requests_come_oldest_first_and_each_for_its_workflow(spool: Spool) -> None:
    for request_id, workflow_id in [(f"{ASKED}2", ONE), (f"{ASKED}3", ONE), (f"{ASKED}1", TWO)]:
        spool.request(request(request_id, workflow_id))
    assert [found.request_id for _, found in spool.pending_requests()] == [f"{ASKED}1", f"{ASKED}2", f"{ASKED}3"]
    assert [found.request_id for _, found in spool.requests_of(ONE)] == [f"{ASKED}2", f"{ASKED}3"]


def test_a_damaged_request_is_set_aside_when_told_and_stops_no_other(spool: Spool) -> None:
    spool.request(request(f"{ASKED}5"))
    good = msgspec.json.encode(request(f"{ASKED}4"))
    newer = f"{ONE}.{ASKED}3.json"
    damaged = {
        f"{ONE}.{ASKED}1.json": good[:-10],
        f"{ONE}.{ASKED}2.json": b"\xff\xfe",
        "no-dots.json": b"[" * 100_000,
        f"{ONE}.{ASKED}6.json": b"",
        f"{TWO}.{ASKED}4.json": good,
    }
    for name, data in damaged.items():
        (spool.requests / name).write_bytes(data)
    (spool.requests / newer).write_bytes(good.replace(b'"format":1', b'"format":2'))
    (spool.requests / f"{ONE}.{ASKED}7.json").mkdir()
    (spool.requests / f"{ONE}.{ASKED}8.json").symlink_to(spool.root / "format")
    os.mkfifo(spool.requests / f"{ONE}.{ASKED}9.json")
    before = sorted(os.listdir(spool.requests))
    assert [found.request_id for _, found in spool.pending_requests()] == [f"{ASKED}5"]
    assert [found.request_id for _, found in spool.requests_of(ONE)] == [f"{ASKED}5"]
    assert sorted(os.listdir(spool.requests)) == before  # who looks moves nothing
    told = dict(spool.set_aside_damaged_requests())
    assert sorted(os.listdir(spool.requests)) == [newer, f"{ONE}.{ASKED}5.json"]
    kept = {name.partition("-")[2]: spool.rejected / name for name in os.listdir(spool.rejected)}
    assert {name: kept[name].read_bytes() for name in damaged} == damaged
    assert set(kept) == set(told) == {*damaged, *(f"{ONE}.{ASKED}{number}.json" for number in (7, 8, 9))}
    assert all(told.values())


def test_a_request_that_cannot_be_read_now_is_not_damaged(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.request(request(f"{ASKED}5"))

    def fail(*_args: object) -> None:
        raise OSError(errno.EMFILE, "too many")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fail)
        [(_, told)] = spool.set_aside_damaged_requests()
        assert "Too many open files" in told
    assert [found.request_id for _, found in spool.pending_requests()] == [f"{ASKED}5"]


def test_a_request_that_somebody_applies_meanwhile_is_passed_over(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.request(request(f"{ASKED}1"))
    names = reading.list_names(spool.requests)
    files.remove(spool.requests / names[0])
    monkeypatch.setattr(reading, "list_names", lambda _path, **_rest: names)
    assert list(spool.pending_requests()) == []


def test_nudges_do_not_pile_up_and_need_nothing(spool: Spool) -> None:
    spool.nudge()
    spool.nudge()
    assert os.listdir(spool.requests) == [".nudge"]
    assert reading.list_names(spool.requests) == []
    shutil.rmtree(spool.requests)
    spool.nudge()


# The orchestrator


def test_there_is_one_orchestrator_and_the_second_is_told_who(spool: Spool) -> None:
    lock = spool.take_orchestrator_lock()
    with pytest.raises(OrchestratorUnusable, match=f"held by pid {os.getpid()}$"):
        another(spool).take_orchestrator_lock()
    record = OrchestratorRecord(FORMAT, resident(os.stat(spool.root)), "wuji", EPOCH, "0.1.0", 10)
    spool.save_orchestrator_record(record)
    with pytest.raises(OrchestratorUnusable, match=rf"held by pid {os.getpid()} on wuji since 2026-01-01 00:00:00 UTC"):
        another(spool).take_orchestrator_lock()
    assert spool.running_orchestrator() == record
    lock.release()
    another(spool).take_orchestrator_lock().release()


@pytest.mark.parametrize("data", [b"", b"{", b'{"format": 2}'])
def test_a_damaged_or_dead_record_says_nothing(spool: Spool, data: bytes) -> None:
    dead = OrchestratorRecord(FORMAT, Resident("boot-0", 1, 1), "wuji", EPOCH, "0.1.0", 10)
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
