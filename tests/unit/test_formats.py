"""The files of every format that was ever written load for ever: one spool of each lies in tests/data."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.storage.checkpoint import WorkflowFolder, load, load_request
from provisioning.storage.spool import Reservation

SPOOLS = sorted((Path(__file__).parents[1] / "data").glob("format-*"))


@pytest.mark.parametrize("spool", SPOOLS, ids=lambda path: path.name)
def test_a_spool_of_this_format_loads(spool: Path) -> None:
    (path,) = (spool / "workflows").iterdir()
    folder = WorkflowFolder(path)
    plan, checkpoint = folder.plan(), folder.workflow()
    assert plan is not None
    assert checkpoint is not None
    assert (plan.workflow_id, checkpoint.state) == (path.name, WorkflowState.FAILED)
    assert {task.id for task in plan.workflow.tasks} == {"echo", "fails", "never"}
    assert folder.submission().tasks == 3
    tasks = {task.task_id: task for task in folder.tasks()}
    assert (tasks["echo"].state, tasks["fails"].state) == (TaskState.SUCCEEDED, TaskState.FAILED)
    assert folder.result(tasks["echo"]) == {"a": [1, 2.5, None, "x"]}
    outcome = folder.outcome("fails", 2)
    assert outcome is not None
    assert outcome.outcome is Outcome.FAILED
    (request,) = (spool / "requests").iterdir()
    assert load_request(request).verb == "retry"
    (reservation,) = (spool / "ids").glob("*.json")
    assert load(reservation, Reservation).workflow_id == path.name


def test_there_is_one_of_the_present_format() -> None:
    assert (SPOOLS[-1] / "format").read_text() == "1\n"
