"""What is left of a failed workflow, in its operator's folder: when it is written, and that it is nobody's drop."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from provisioning.clock import boot_id, boottime, now
from provisioning.core.drop import Sight, is_answer, rescue_name
from provisioning.core.scheduler import Now
from provisioning.core.states import WorkflowState
from provisioning.orchestrator import answering
from provisioning.orchestrator.rescue import rescue_manifest
from provisioning.storage.checkpoint import WorkflowFolder
from tests.doors import GOOD, OWN, Doors

ULID = "01kc0000000000000000000000"


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doors]:
    made = Doors(tmp_path, monkeypatch)
    yield made
    made.close()


def rescue_of(doors: Doors, name: str, state: WorkflowState = WorkflowState.FAILED) -> str:
    """Drop a manifest, have its workflow end, and say which file the receipt names."""
    doors.put(name)
    doors.work()
    doors.has_failed(doors.receipt(name).workflow_id, state)
    doors.work()
    assert doors.receipt(name).state == state
    return doors.receipt(name).rescue


def test_only_of_what_failed(doors: Doors) -> None:
    failed = rescue_of(doors, "failed.toml")
    assert json.loads((doors.folder / failed).read_bytes())["id"].startswith("rescue-")
    assert rescue_of(doors, "rolled-back.toml", WorkflowState.ROLLED_BACK)
    assert rescue_of(doors, "cancelled.toml", WorkflowState.CANCELLED) == ""
    assert doors.left() == sorted([failed, doors.receipt("rolled-back.toml").rescue])


def test_none_that_the_door_would_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doors = Doors(tmp_path, monkeypatch, max_bytes=len(GOOD) + 100)
    assert (rescue_of(doors, "m.toml"), doors.left()) == ("", [])
    doors.close()


def test_none_of_very_many_tasks(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "RESCUED_TASKS", 0)
    assert rescue_of(doors, "m.toml") == ""


def test_a_damaged_workflow_still_gets_its_receipt(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    doors.put("m.toml")
    doors.work()
    workflow_id = doors.receipt("m.toml").workflow_id
    doors.has_failed(workflow_id)
    path = doors.spool.workflows / workflow_id / "tasks" / "a.json"

    def damaged(folder: WorkflowFolder, form: str) -> bytes:
        path.write_bytes(b"[]\n")
        return rescue_manifest(folder, form)

    monkeypatch.setattr(answering, "rescue_manifest", damaged)
    doors.work()
    assert (doors.receipt("m.toml").state, doors.receipt("m.toml").rescue) == ("failed", "")


def test_the_same_name_again_leaves_the_rest_of_the_one_before(doors: Doors) -> None:
    first, second = rescue_of(doors, "m.toml"), rescue_of(doors, "m.toml")
    assert first != second
    assert doors.left() == sorted([first, second])


def test_it_goes_when_receipts_go(doors: Doors) -> None:
    left = rescue_of(doors, "m.toml")
    intake, kept = doors.intake(), timedelta(seconds=doors.config.drop.receipt_seconds)
    intake._remove_old_receipts(Now(now() + kept - timedelta(minutes=1), boottime() + 4000, boot_id()))
    assert doors.left() == [left], "its time is not over"
    intake._remove_old_receipts(Now(now() + kept + timedelta(minutes=1), boottime() + 8000, boot_id()))
    assert os.listdir(doors.folder) == []


def test_a_file_of_the_operator_s_is_a_drop_whatever_its_name() -> None:
    def sight(name: str, owner: int) -> Sight:
        return Sight(name.encode(), 1, 2, 0o100644, owner, owner, 1, 3, 4, 5)

    name = rescue_name("m.toml", ULID)
    assert is_answer(sight(name, 7), 7)
    assert not is_answer(sight(name, 8), 7), "it has been put there by its operator"
    assert not is_answer(sight("m.rescue.json", 7), 7)
    assert not is_answer(sight(f"{ULID}.rescue.json.toml", 7), 7)
    assert is_answer(sight("m.toml.receipt.json", 8), 7)


def test_any_name_makes_one_that_may_be_dropped(doors: Doors) -> None:
    name = f"{'n' * 128}.toml"
    left = rescue_of(doors, name)
    assert len(left) <= 133
    (doors.folder / left).rename(doors.folder / "rest.json")
    data = (doors.folder / "rest.json").read_bytes()
    doors.put("rest.json", data)
    doors.work()
    assert (doors.receipt("rest.json").answer, OWN) == ("accepted", doors.receipt("rest.json").operator)
