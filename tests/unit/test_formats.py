"""The files of every format that was ever written load for ever: one spool of each lies in tests/data."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.storage.checkpoint import WorkflowFolder, load
from provisioning.storage.ids import Reservation
from provisioning.storage.request import load_request
from provisioning.storage.spool import OrchestratorRecord

SPOOLS = sorted((Path(__file__).parents[1] / "data").glob("format-*"))


def workflows(spool: Path) -> dict[str, WorkflowFolder]:
    """The claimed workflows, by their names."""
    folders = [WorkflowFolder(path) for path in (spool / "workflows").iterdir()]
    return {folder.submission().name: folder for folder in folders}


@pytest.mark.parametrize("spool", SPOOLS, ids=lambda path: path.name)
def test_a_spool_of_this_format_loads(spool: Path) -> None:
    states = {}
    for name, folder in workflows(spool).items():
        plan, checkpoint = folder.plan(), folder.workflow()
        assert plan is not None
        assert checkpoint is not None
        assert plan.workflow_id == checkpoint.workflow_id == folder.workflow_id
        assert (spool / "nulib" / plan.nulib / "tree").is_dir()
        states[name] = checkpoint.state
    later = {WorkflowState.ROLLING_BACK, WorkflowState.ROLLED_BACK}
    assert set(states.values()) == set(WorkflowState) - {WorkflowState.QUEUED} - later
    assert states == {
        "succeeded": WorkflowState.SUCCEEDED,
        "failed": WorkflowState.FAILED,
        "cancelled": WorkflowState.CANCELLED,
        "paused": WorkflowState.PAUSED,
        "held": WorkflowState.PAUSED,
        "running": WorkflowState.RUNNING,
        "postponed": WorkflowState.RUNNING,
    }
    (incoming,) = (spool / "incoming").iterdir()
    assert WorkflowFolder(incoming).manifest()[1] == "toml"
    (request,) = (spool / "requests").iterdir()
    assert load_request(request).verb == "retry"
    reserved = {path.stem: load(path, Reservation).workflow_id for path in (spool / "ids").glob("*.json")}
    assert reserved["kept"] == workflows(spool)["succeeded"].workflow_id
    assert (spool / "ids" / f"{reserved['cleaned']}.cleaned").exists()
    assert load(spool / "orchestrator.json", OrchestratorRecord).slots == 10


@pytest.mark.parametrize("spool", SPOOLS, ids=lambda path: path.name)
def test_its_tasks_and_outcomes_load(spool: Path) -> None:
    there = workflows(spool)
    tasks = {(name, task.task_id): task for name, folder in there.items() for task in folder.tasks()}
    assert {task.state for task in tasks.values()} == set(TaskState) - {TaskState.SKIPPED, TaskState.CANCELLED}
    assert there["succeeded"].result(tasks["succeeded", "echo"]) == {"a": [1, 2.5, None, "x"]}
    assert [each.outcome for each in tasks["failed", "fails"].attempts] == [Outcome.FAILED] * 2
    outcome = there["failed"].outcome("fails", 2)
    assert outcome is not None
    assert outcome.error is not None
    assert tasks["held", "run"].held
    assert tasks["postponed", "fails"].backoff is not None


def test_there_is_one_of_the_present_format() -> None:
    assert (SPOOLS[-1] / "format").read_text() == "1\n"
