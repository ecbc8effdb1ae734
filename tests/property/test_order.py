"""The order in which checkpoints are found on a disk says nothing: any order gives the same schedule."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.core.graph import Graph
from provisioning.core.scheduler import Schedule
from provisioning.core.states import Outcome, TaskState
from provisioning.core.workflow import Backoff, Task, TaskCheckpoint, Workflow
from tests.property.reference import Reference
from tests.simulation.values import at, checkpoint

LOADED = [TaskState.PENDING, TaskState.RUNNING, TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED]


@st.composite
def graphs(draw: st.DrawFn) -> Workflow:
    names = [f"t{i}" for i in range(draw(st.integers(1, 9)))]
    tasks = []
    for i, name in enumerate(names):
        earlier = st.lists(st.sampled_from(names[:i]), unique=True, max_size=3) if i else st.just([])
        tasks.append(Task(name, "selftest.noop", depends_on=tuple(draw(earlier)), after=tuple(draw(earlier))))
    return Workflow(
        "graph", tuple(draw(st.permutations(tasks))), on_failure=draw(st.sampled_from(["stop", "continue"]))
    )


def any_checkpoint(draw: st.DrawFn, task_id: str) -> TaskCheckpoint:
    """Any checkpoint that a file may hold, however a person's retries and crashes came to it."""
    state = draw(st.sampled_from(LOADED))
    tried: list[Outcome | None] = [Outcome.FAILED] * draw(st.integers(0, 2))
    if state is TaskState.RUNNING:
        tried.append(None)
    waits = draw(st.sampled_from(["", "held", "backoff"])) if state is TaskState.PENDING else ""
    backoff = Backoff("boot-1", 10.0, at(10).wall) if waits == "backoff" else None
    counted_from = draw(st.integers(1, len(tried) + 1))
    return checkpoint(task_id, state, *tried, held=waits == "held", backoff=backoff, counted_from=counted_from)


@st.composite
def loadings(draw: st.DrawFn) -> tuple[Workflow, list[TaskCheckpoint], list[TaskCheckpoint]]:
    workflow = draw(graphs())
    chosen = draw(st.lists(st.sampled_from(workflow.tasks), unique_by=lambda task: task.id))
    found = [any_checkpoint(draw, task.id) for task in chosen]
    return workflow, found, draw(st.permutations(found))


def facts(schedule: Schedule, boottime: float) -> tuple[object, ...]:
    """All that can be seen of a schedule, what it would start included."""
    waiting = [schedule.waiting_for(task.id) for task in schedule.tasks]
    seen = (list(schedule.states), schedule.counts(), dict(schedule.reasons), waiting, schedule.end(boottime))
    started = []
    while schedule.can_start(boottime):
        started.append(schedule.start_next().id)
    return *seen, started, schedule.next_due()


@settings(max_examples=400)
@given(loadings(), st.sampled_from([0.0, 10.0]))
def test_any_order_of_loading_gives_the_same_schedule(
    loading: tuple[Workflow, list[TaskCheckpoint], list[TaskCheckpoint]], boottime: float
) -> None:
    workflow, found, shuffled = loading
    first, second = (Schedule(workflow, checkpoints, at(0)) for checkpoints in (found, shuffled))
    assert facts(first, boottime) == facts(second, boottime)


@settings(max_examples=400)
@given(loadings(), st.sampled_from([0.0, 10.0]))
def test_what_was_loaded_is_what_the_reference_says(
    loading: tuple[Workflow, list[TaskCheckpoint], list[TaskCheckpoint]], boottime: float
) -> None:
    workflow, found, _ = loading
    reference = Reference(workflow)
    for each in found:
        reference.learn(each)
    schedule = Schedule(workflow, found, at(0))
    states = {task.id: str(state) for task, state in zip(workflow.tasks, schedule.states, strict=True)}
    assert states == reference.states()
    may = {task.id for task in workflow.tasks if reference.may_start(task.id, boottime)}
    assert set(facts(schedule, boottime)[5]) == may  # type: ignore[call-overload]


@given(graphs())
def test_the_order_puts_each_task_behind_what_it_waits_for(workflow: Workflow) -> None:
    graph = Graph(workflow.tasks)
    order = [graph.names[i] for i in graph.order]
    assert sorted(order) == sorted(task.id for task in workflow.tasks)
    for task in workflow.tasks:
        for other in (*task.depends_on, *task.after):
            assert order.index(other) < order.index(task.id)
