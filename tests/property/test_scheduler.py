"""Laws of the schedule in random graphs: order, limits, ends, and the same answer from any order of loading."""

from __future__ import annotations

import time
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.core import attempts
from provisioning.core.scheduler import Now, Schedule
from provisioning.core.states import ENDED_TASKS, Outcome, TaskState, WorkflowEvent
from provisioning.core.turns import Scheduler
from provisioning.core.workflow import FORMAT, Retry, Task, TaskCheckpoint, Workflow
from tests.property.reference import Reference
from tests.simulation.values import at, record

OUTCOMES = [Outcome.SUCCEEDED, Outcome.SUCCEEDED, Outcome.FAILED, Outcome.INTERRUPTED, Outcome.NOT_STARTED]


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    """A random graph of up to 12 tasks in random order, with random policies; some of three are a group."""
    size = draw(st.integers(1, 12))
    grouped = draw(st.sets(st.integers(0, 3)))
    ids = [f"g{i // 3}.{i}" if i // 3 in grouped else f"t{i}" for i in range(size)]
    tasks = []
    for i in range(size):
        names = [*ids[:i], *(f"g{k}" for k in grouped if k < i // 3)]
        earlier = st.lists(st.sampled_from(names), unique=True, max_size=3) if i else st.just([])
        tasks.append(
            Task(
                ids[i],
                "selftest.noop",
                depends_on=tuple(draw(earlier)),
                after=tuple(draw(earlier)),
                retry=Retry(max_attempts=draw(st.integers(1, 3)), initial_delay_seconds=draw(st.integers(0, 3))),
                on_interrupt=draw(st.sampled_from(["rerun", "rerun", "fail"])),
            )
        )
    return Workflow(
        "random",
        tuple(draw(st.permutations(tasks))),
        max_parallel=draw(st.none() | st.integers(1, 4)),
        on_failure=draw(st.sampled_from(["stop", "continue"])),
    )


class Driven(NamedTuple):
    """What came of a workflow that was driven to its end."""

    checkpoints: dict[str, TaskCheckpoint]
    schedule: Schedule
    end: tuple[WorkflowEvent, str] | None
    reference: Reference


class Driver:
    """Runs a workflow in a scheduler with a fake executor, and a slow, plain reference beside it."""

    def __init__(self, workflow: Workflow, slots: int, data: st.DataObject) -> None:
        self.tasks = {task.id: task for task in workflow.tasks}
        self.workflow, self.slots, self.data = workflow, slots, data
        self.now: Now = at(0)
        self.checkpoints: dict[str, TaskCheckpoint] = {}
        self.reference = Reference(workflow)
        self.running: list[str] = []
        self._load()

    def _load(self) -> None:
        loaded = self.data.draw(st.permutations(list(self.checkpoints.values())))
        self.schedule = Schedule(self.workflow, loaded, self.now)
        self.scheduler = Scheduler()
        self.scheduler.add("w", self.schedule, 50)

    def run(self) -> Driven:
        """Start, end, reload and wait until nothing more happens."""
        while True:
            self._start()
            self._compare()
            if self.running:
                self._end(self.running.pop(self.data.draw(st.integers(0, len(self.running) - 1))))
            elif (due := self.scheduler.next_due()) is not None and not self.scheduler.ends(self.now):
                assert due > self.now.boottime
                self.now = at(due)
            elif not self.schedule.can_start(self.now.boottime):  # else a start was withdrawn
                return Driven(self.checkpoints, self.schedule, self.schedule.end(self.now.boottime), self.reference)
            if self.data.draw(st.integers(0, 5)) == 5:
                self._load()  # as after a crash

    def _start(self) -> None:
        for _, task_id in self.scheduler.starts(self.now, self.slots - len(self.running)):
            assert self.reference.may_start(task_id, self.now.boottime), f"{task_id} was started too soon"
            before = self.checkpoints.get(task_id) or TaskCheckpoint(FORMAT, task_id)
            if self.data.draw(st.integers(0, 9)) == 9:
                self.schedule.withdraw(task_id)
                continue
            self._settle(attempts.started(before, self.now, "w"))
            self.running.append(task_id)
        assert len(self.running) <= self.slots
        assert len(self.running) <= (self.workflow.max_parallel or len(self.tasks))

    def _end(self, task_id: str) -> None:
        before, task = self.checkpoints[task_id], self.tasks[task_id]
        outcome = self.data.draw(st.sampled_from(OUTCOMES))
        if outcome is Outcome.INTERRUPTED:
            self._settle(attempts.interrupted(before, task, self.now, "lost"))
        elif outcome is Outcome.NOT_STARTED:
            self._settle(attempts.not_started(before, self.now, "no room"))
        else:
            result = record(task_id, outcome, before.attempts[-1].number)
            self._settle(attempts.ended(before, task, result, self.now, cancelling=False))

    def _settle(self, checkpoint: TaskCheckpoint) -> None:
        self.checkpoints[checkpoint.task_id] = checkpoint
        self.schedule.settle(checkpoint, self.now)
        self.reference.learn(checkpoint)

    def _compare(self) -> None:
        states = {task.id: str(state) for task, state in zip(self.workflow.tasks, self.schedule.states, strict=False)}
        assert states == self.reference.states()
        full = len(self.running) >= min(self.slots, self.workflow.max_parallel or len(self.tasks))
        idle = [task_id for task_id in self.tasks if self.reference.may_start(task_id, self.now.boottime)]
        if idle and not full:  # only a withdrawn start can be left
            assert self.schedule.can_start(self.now.boottime), f"{idle} could start and do not"


@settings(max_examples=400)
@given(workflows(), st.integers(1, 5), st.data())
def test_any_workflow_runs_in_order_within_its_limits_to_the_end_of_the_reference(
    workflow: Workflow, slots: int, data: st.DataObject
) -> None:
    driven = Driver(workflow, slots, data).run()
    held = [task_id for task_id, checkpoint in driven.checkpoints.items() if checkpoint.held]
    if any(driven.reference.states()[task_id] == "pending" for task_id in held):
        assert driven.end is None, "a person must decide"
        return
    assert driven.end is not None, "it neither ends nor waits for anyone"
    failed = any(state == "failed" for state in driven.reference.states().values())
    assert driven.end[0] is (WorkflowEvent.FAILED if failed else WorkflowEvent.SUCCEEDED)
    driven.schedule.close(TaskState.SKIPPED, "the end")
    assert set(driven.schedule.states[: len(workflow.tasks)]) <= ENDED_TASKS
    if not failed:
        assert driven.schedule.counts() == {"succeeded": len(workflow.tasks)}


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
