"""Laws of the schedule in random graphs: order, limits, ends, and the same answer from any order of loading."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.core.scheduler import Schedule
from provisioning.core.states import ENDED_TASKS, TaskState, WorkflowEvent
from provisioning.core.turns import Scheduler
from provisioning.core.workflow import FORMAT, Task, TaskCheckpoint, Workflow
from tests.property.driving import drive, workflows
from tests.simulation.values import at


def agree(locks: Path, workflow: Workflow, slots: int, data: st.DataObject) -> None:
    """Conditions, groups, targets, retries, rollback, pauses, a cancel at any moment: `Driver` compares each step."""
    driven = drive(workflow, slots, data, locks)
    states = driven.reference.states()
    if not driven.ends or driven.ends[-1] == WorkflowEvent.ROLLING_BACK:
        held = [task_id for task_id, checkpoint in driven.checkpoints.items() if checkpoint.held]
        assert any(states[task_id] == "pending" for task_id in held), "it neither ends nor waits for a person"
        return
    driven.schedule.close(TaskState.SKIPPED, "the end")
    assert set(driven.schedule.states[: len(driven.schedule.tasks)]) <= ENDED_TASKS
    if driven.ends == [WorkflowEvent.SUCCEEDED]:
        assert set(states.values()) <= {"succeeded", "skipped"}


@pytest.mark.timeout(600)
@settings(max_examples=200)
@given(workflows(), st.integers(1, 5), st.data())
def test_every_history_is_that_of_the_reference(
    locks: Path, workflow: Workflow, slots: int, data: st.DataObject
) -> None:
    agree(locks, workflow, slots, data)


@pytest.mark.long
@pytest.mark.timeout(900)
@settings(max_examples=10_000)
@given(workflows(), st.integers(1, 5), st.data())
def test_many_more_histories(locks: Path, workflow: Workflow, slots: int, data: st.DataObject) -> None:
    agree(locks, workflow, slots, data)


def drive_all(workflow: Workflow) -> float:
    """Seconds that the scheduler takes for a workflow that succeeds, 10 at a time."""
    begun = time.process_time()
    schedule = Schedule(workflow, [], at(0))
    scheduler = Scheduler()
    scheduler.add("w", schedule, 50)
    running: list[str] = []
    done = 0
    while running := [*running, *(task_id for _, task_id in scheduler.starts(at(0), 10 - len(running)))]:
        schedule.settle(TaskCheckpoint(FORMAT, running.pop(0), TaskState.SUCCEEDED), at(0))
        done += 1
        assert bool(scheduler.ends(at(0))) is (done == len(workflow.tasks))
    assert done == len(workflow.tasks)
    return time.process_time() - begun


def flat(size: int) -> Workflow:
    return Workflow("flat", tuple(Task(f"t{i}", "selftest.noop") for i in range(size)))


def chain(size: int) -> Workflow:
    waits = [(f"t{i - 1}",) if i else () for i in range(size)]
    return Workflow("chain", tuple(Task(f"t{i}", "selftest.noop", depends_on=w) for i, w in enumerate(waits)))


def fan(size: int) -> Workflow:
    """All wait for one, and one waits for all."""
    middle = [Task(f"t{i}", "selftest.noop", depends_on=("first",)) for i in range(size - 2)]
    last = Task("last", "selftest.noop", depends_on=tuple(task.id for task in middle))
    return Workflow("fan", (Task("first", "selftest.noop"), *middle, last))


@pytest.mark.parametrize("shape", [flat, chain, fan])
def test_a_task_costs_the_same_in_a_large_workflow(shape: object) -> None:
    """Ten times the tasks may take ten times as long, and as much again for a busy machine; squared would be 100."""
    assert callable(shape)
    small = min(drive_all(shape(1_000)) for _ in range(5))
    large = min(drive_all(shape(10_000)) for _ in range(3))
    assert large < 25 * small, f"{small * 1000:.1f} ms for 1,000 tasks, {large * 1000:.1f} ms for 10,000"


def test_the_cost_of_failing_does_not_grow_either() -> None:
    """Each of n tasks fails, and one task waits for all of them."""

    def fail_all(size: int) -> float:
        plan = fan(size)
        begun = time.process_time()
        ended = [TaskCheckpoint(FORMAT, task.id, TaskState.FAILED) for task in plan.tasks[1:-1]]
        schedule = Schedule(plan, [TaskCheckpoint(FORMAT, "first", TaskState.SUCCEEDED), *ended], at(0))
        assert schedule.counts() == {"failed": size - 2, "skipped": 1, "succeeded": 1}
        return time.process_time() - begun

    small = min(fail_all(1_000) for _ in range(5))
    large = min(fail_all(10_000) for _ in range(3))
    assert large < 25 * small
