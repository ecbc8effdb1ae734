"""Small runs of the simulated fleet: it plays every shape to its end, and sees a schedule that starts too early."""

from __future__ import annotations

import pytest

from tests.benchmark.fleet import GRAPHS, Fleet, workflow_of


@pytest.mark.parametrize("shape", GRAPHS)
def test_every_task_is_done_and_no_slot_is_used_twice(shape: str) -> None:
    fleet = Fleet(workflow_of(500, GRAPHS[shape]), 40)
    assert fleet.work() == "succeeded"
    assert len(fleet.checkpoints) == 500
    assert fleet.most_running <= 40


def test_as_many_run_as_there_are_slots() -> None:
    fleet = Fleet(workflow_of(500, GRAPHS["flat"]), 40)
    fleet.work()
    assert fleet.most_running == 40


def test_a_task_before_what_it_depends_on_is_seen() -> None:
    fleet = Fleet(workflow_of(500, GRAPHS["flat"]), 40)
    fleet.tasks = {task.id: task for task in workflow_of(500, GRAPHS["random"]).tasks}
    with pytest.raises(AssertionError, match="t1 started before t0 was done"):
        fleet.work()
