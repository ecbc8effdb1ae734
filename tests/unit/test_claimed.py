"""Claimed workflows at rest cost nothing: they are looked at once, and again when somebody has taken them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from provisioning.core.states import TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, Attempt, TaskCheckpoint, WorkflowCheckpoint
from provisioning.orchestrator.claimed import Claimed
from provisioning.storage.active import active_ids, name_active
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import Spool

ENDED, PAUSED, RUNS, BARE, NEW = (f"01kc000000000000000000000{i}" for i in range(5))
AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.create(tmp_path / "spool")


def claimed(spool: Spool, workflow_id: str, state: WorkflowState | None) -> WorkflowFolder:
    """A claimed workflow in this state, or without a checkpoint."""
    (spool.workflows / workflow_id).mkdir()
    folder = spool.workflow(workflow_id)
    folder.prepare()
    if state is not None:
        folder.save_workflow(WorkflowCheckpoint(FORMAT, workflow_id, state, "alice", AT, "boot"))
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The workflows whose checkpoints were read, again and again."""
    found: list[str] = []
    real = WorkflowFolder.workflow

    def counted(self: WorkflowFolder) -> WorkflowCheckpoint | None:
        found.append(self.workflow_id)
        return real(self)

    monkeypatch.setattr(WorkflowFolder, "workflow", counted)
    return found


def wanting(looks: Claimed) -> list[str]:
    return [each for each in looks.ids() if looks.wants_holder(each)]


def test_what_is_at_rest_is_read_once_and_never_again(spool: Spool, reads: list[str]) -> None:
    claimed(spool, ENDED, WorkflowState.SUCCEEDED)
    claimed(spool, PAUSED, WorkflowState.PAUSED)
    claimed(spool, RUNS, WorkflowState.RUNNING)
    claimed(spool, BARE, None)
    looks = Claimed(spool)
    assert wanting(looks) == [RUNS, BARE]
    assert reads.count(ENDED) == reads.count(PAUSED) == 1
    reads.clear()
    assert wanting(looks) == [RUNS, BARE]
    assert set(reads) == {RUNS, BARE}


def test_one_that_is_set_going_by_a_process_that_dies_is_found(spool: Spool) -> None:
    folder = claimed(spool, ENDED, WorkflowState.FAILED)
    looks = Claimed(spool)
    assert wanting(looks) == []
    name_active(spool.root, ENDED)  # as whoever takes it does first
    checkpoint = folder.workflow()
    assert checkpoint is not None
    folder.save_workflow(msgspec.structs.replace(checkpoint, state=WorkflowState.RUNNING))
    assert wanting(looks) == [ENDED]


def test_one_that_another_process_has_claimed_is_found(spool: Spool) -> None:
    looks = Claimed(spool)
    assert wanting(looks) == []
    name_active(spool.root, NEW)
    assert wanting(looks) == []
    name_active(spool.root, NEW)
    claimed(spool, NEW, WorkflowState.RUNNING)
    assert wanting(looks) == [NEW]


def test_a_name_that_is_left_of_one_at_rest_costs_one_look(spool: Spool, reads: list[str]) -> None:
    claimed(spool, ENDED, WorkflowState.SUCCEEDED)
    name_active(spool.root, ENDED)
    looks = Claimed(spool)
    assert wanting(looks) == []
    assert active_ids(spool.root) == []
    reads.clear()
    assert wanting(looks) == []
    assert reads == []


def test_the_name_of_one_that_somebody_holds_stays(spool: Spool) -> None:
    claimed(spool, ENDED, WorkflowState.SUCCEEDED)
    lock = spool.lock(ENDED)
    assert lock is not None
    name_active(spool.root, ENDED)
    looks = Claimed(spool)
    assert wanting(looks) == []
    assert active_ids(spool.root) == [ENDED]
    lock.release()
    assert wanting(looks) == []
    assert active_ids(spool.root) == []


def test_a_paused_one_with_an_attempt_under_way_wants_a_holder(spool: Spool) -> None:
    folder = claimed(spool, PAUSED, WorkflowState.PAUSED)
    attempt = Attempt(1, AT, "boot", PAUSED)
    folder.save_task(TaskCheckpoint(FORMAT, "a", TaskState.RUNNING, (attempt,)))
    assert wanting(Claimed(spool)) == [PAUSED]


def test_a_damaged_one_is_looked_at_until_it_is_mended(spool: Spool) -> None:
    folder = claimed(spool, RUNS, WorkflowState.RUNNING)
    (folder.path / "workflow.json").write_text("?")
    looks = Claimed(spool)
    assert looks.ids() == looks.ids() == [RUNS]
