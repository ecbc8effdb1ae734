"""Rows of the crash table: drops, from their taking to their last receipt, and the audit log."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioning.clock import new_ulid
from provisioning.core.states import WorkflowState
from provisioning.core.workflow import FORMAT, Submission, WorkflowCheckpoint
from provisioning.orchestrator.answering import Answering
from provisioning.orchestrator.intake import Intake
from provisioning.storage import drop, files, foreign, ids, receipts
from provisioning.storage.audit import Audit
from provisioning.storage.check import check
from provisioning.storage.checkpoint import encode
from tests.crash.host import Crash
from tests.doors import OWN, Doors, named


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doors]:
    made = Doors(tmp_path, monkeypatch)
    yield made
    made.close()


def crash(doors: Doors, patched: pytest.MonkeyPatch, where: Any, step: str, *, after: bool = False) -> None:
    """Work the door until that step is made, and die just before it, or just after it."""
    original = getattr(where, step)

    def end(*arguments: Any, **rest: Any) -> Any:
        if after:
            original(*arguments, **rest)
        raise Crash

    with patched.context() as within:
        within.setattr(where, step, end)
        with pytest.raises(Crash):
            doors.work()
    doors.die()


def accepted_once(doors: Doors, name: str = "m.toml") -> str:
    """Hold what is there to one acceptance of the drop, said and audited once; its workflow_id."""
    receipt = doors.receipt(name)
    assert (receipt.answer, doors.left()) == ("accepted", [])
    assert doors.spool.incoming_ids() == [receipt.workflow_id]
    events = doors.events()
    assert (events["taken", name], events["accepted", name], events["rejected", name]) == (1, 1, 0)
    assert [*drop.takings(doors.spool), *check(doors.root)] == []
    return receipt.workflow_id


def test_taken_with_original(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    doors.put("m.toml")
    crash(doors, monkeypatch, drop, "remove_original")
    assert (len(drop.takings(doors.spool)), doors.left()) == (1, ["m.toml"])
    doors.work()
    accepted_once(doors)


def test_taken_twice(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a version that knew of none of its own past: it took again what it had not removed."""
    doors.put("m.toml")
    crash(doors, monkeypatch, drop, "remove_original")
    with monkeypatch.context() as within:
        within.setattr(Intake, "_recover", lambda _: None)
        crash(doors, monkeypatch, drop, "remove_original")
    assert (len(drop.takings(doors.spool)), doors.left()) == (2, ["m.toml"])
    doors.work()
    assert (doors.left(), len(doors.spool.incoming_ids()), drop.takings(doors.spool)) == ([], 1, [])
    assert doors.events()["accepted", "m.toml"] == 1


def test_taken_with_moved_original(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    doors.put("m.toml")
    crash(doors, monkeypatch, foreign, "settle_away")
    (take_id,) = drop.takings(doors.spool)
    assert (doors.spool.taking / take_id / "original").exists()
    doors.work()
    accepted_once(doors)


def test_taken_without_decision(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    doors.put("m.toml")
    crash(doors, monkeypatch, Answering, "decide")
    assert (len(drop.takings(doors.spool)), drop.load_answers(doors.spool)) == (1, ({}, []))
    doors.work()
    accepted_once(doors)


def test_accepted_half_way(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    doors.put("m.toml")
    crash(doors, monkeypatch, drop, "put_in")
    answers, _ = drop.load_answers(doors.spool)
    assert [list(answers)] == [drop.takings(doors.spool)]
    doors.work()
    accepted_once(doors)


def test_accepted_without_answer(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in ("append", "publish"):
        doors.put(f"{step}.toml")
        where: Any = Audit if step == "append" else foreign
        with monkeypatch.context() as within:
            within.setattr(Answering, "carry_out", _then_crash_at(Answering.carry_out, where, step, within))
            with pytest.raises(Crash):
                doors.work()
        doors.die()
        assert not (doors.folder / f"{step}.toml.receipt.json").exists()
        doors.work()
        assert doors.receipt(f"{step}.toml").answer == "accepted"
        events = doors.events()
        assert (events["taken", f"{step}.toml"], events["accepted", f"{step}.toml"]) == (1, 1)
    assert len(doors.spool.incoming_ids()) == 2


def _then_crash_at(original: Any, where: Any, step: str, patched: pytest.MonkeyPatch) -> Any:
    def end(*_: Any, **__: Any) -> Any:
        raise Crash

    def begin(*arguments: Any, **rest: Any) -> Any:
        patched.setattr(where, step, end)
        return original(*arguments, **rest)

    return begin


def test_accepted_with_anothers_id(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    path = doors.put("m.toml", named("nightly"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    died = Submission(FORMAT, new_ulid(), "x", "default", OWN, "drop", digest, datetime.now(UTC), 1, id="nightly")
    ids.reserve(doors.spool.ids, died, is_there=lambda _: False, scratch=doors.spool.scratch)
    crash(doors, monkeypatch, Answering, "carry_out")
    (answer,) = drop.load_answers(doors.spool)[0].values()
    assert doors.spool.incoming_ids() == [died.workflow_id] != [answer.receipt.workflow_id]
    doors.work()
    assert accepted_once(doors) == died.workflow_id


def rejected_once(doors: Doors, name: str, count: int) -> None:
    assert (doors.receipt(name).answer, doors.code(name), doors.left()) == ("rejected", "missing-key", [])
    assert len(os.listdir(doors.spool.rejected)) == count
    events = doors.events()
    assert (events["taken", name], events["rejected", name], events["accepted", name]) == (1, 1, 0)
    assert [*drop.takings(doors.spool), *drop.load_answers(doors.spool)[0], *check(doors.root)] == []


def test_rejected_half_way(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (where, step) in enumerate(((receipts, "publish"), (drop, "put_aside"))):
        doors.put(f"m{number}.toml", b"schema = 1\n")
        crash(doors, monkeypatch, where, step)
        (take_id,) = drop.takings(doors.spool)
        assert [reason.code for reason in drop.noted_reasons(doors.spool, take_id)] == ["missing-key"] * 2
        doors.work()
        rejected_once(doors, f"m{number}.toml", number + 1)


def test_asked_half_way(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    doors.put("m.toml")
    doors.work()
    workflow_id = doors.receipt("m.toml").workflow_id
    for after in (False, True):
        doors.ask(f"after-{after}", verb="cancel", workflow_id=workflow_id)
        crash(doors, monkeypatch, Answering, "ask", after=after)
        assert len(doors.spool.requests_of(workflow_id)) == (2 if after else 0)
        doors.work()
        assert doors.receipt(f"after-{after}.request.json").request == "cancel"
        assert doors.events()["request", f"after-{after}.request.json"] == 1
    assert len(doors.spool.requests_of(workflow_id)) == 2


def test_ended_without_receipt(doors: Doors) -> None:
    doors.put("m.toml")
    doors.work()
    workflow_id = doors.receipt("m.toml").workflow_id
    doors.die()
    doors.spool.claim(workflow_id)
    ended = WorkflowCheckpoint(
        FORMAT, workflow_id, WorkflowState.CANCELLED, OWN, datetime.now(UTC), "boot", ended_at=datetime.now(UTC)
    )
    files.write_atomic(doors.spool.workflows / workflow_id / "workflow.json", encode(ended), durable=False)
    doors.work()
    assert (doors.receipt("m.toml").state, drop.load_answers(doors.spool)[0]) == ("cancelled", {})


def test_rescue_without_receipt(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    doors.put("m.toml")
    doors.work()
    workflow_id = doors.receipt("m.toml").workflow_id
    doors.has_failed(workflow_id)
    crash(doors, monkeypatch, receipts, "publish_rescue", after=True)
    left = doors.left()
    assert (left, doors.receipt("m.toml").state) == ([f"m.toml.{workflow_id}.rescue.json"], "")
    doors.work()
    assert (doors.receipt("m.toml").state, [doors.receipt("m.toml").rescue]) == ("failed", left)
    assert (doors.left(), drop.load_answers(doors.spool)[0]) == (left, {})


def test_audit_cut_off(doors: Doors) -> None:
    log = Audit(doors.root)
    log.append("accepted", operator="alice")
    path = doors.root / "audit" / "audit.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"n":2,"at":"2026')
    assert len(log.verify()[0]) == 1
    assert Audit(doors.root).append("accepted", operator="bob").n == 2
    assert log.verify()[0] == []
    assert [record.get("cut_off_before_bytes") for record in log.records()] == [None, 17]
