"""Laws of a rollback in random graphs: who is undone, and that nobody is before those that waited for it."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.core import attempts
from provisioning.core.catalogue import Operation
from provisioning.core.rollback import SUFFIX, Undoing, not_undone
from provisioning.core.states import Outcome, TaskState, WorkflowEvent
from provisioning.core.workflow import FORMAT, Plan, Rollback, Task, TaskCheckpoint, Undo, Workflow
from tests.property.undoing import to_undo, waiting_for
from tests.simulation.values import NULIB, WORKFLOW_ID, at, checkpoint, record

OPERATIONS = {
    name: Operation(name, name, "", "", (), None, idempotent=name == "undo.again")
    for name in ("work.do", "undo.again", "undo.once")
}
ENDS = [
    (TaskState.SUCCEEDED, Outcome.SUCCEEDED),
    (TaskState.SUCCEEDED, Outcome.SUCCEEDED),
    (TaskState.FAILED, Outcome.FAILED),
    (TaskState.FAILED, Outcome.TIMED_OUT),
    None,
]


class Case(NamedTuple):
    """A workflow as it stands when it is rolled back."""

    plan: Plan
    checkpoints: dict[str, TaskCheckpoint]
    rollback: Rollback


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Up to ten tasks, some in groups, with and without undos, ended in every way or not begun."""
    ids = [f"g{i // 3}.{i}" if i // 3 == 1 else f"t{i}" for i in range(draw(st.integers(1, 10)))]
    tasks, known = [], {}
    for i, task_id in enumerate(ids):
        names = [*ids[:i], *(["g1"] if i >= 6 else [])]
        waits = tuple(draw(st.lists(st.sampled_from(names), unique=True, max_size=3))) if names else ()
        by = draw(st.sampled_from([None, "undo.again", "undo.again", "undo.once"]))
        tasks.append(
            Task(
                task_id,
                "work.do",
                depends_on=waits[:2],
                after=waits[2:],
                undo=Undo(by, {}) if by else None,
                preserve=draw(st.integers(0, 5)) == 5,
            )
        )
        if end := draw(st.sampled_from(ENDS)):
            known[task_id] = checkpoint(task_id, end[0], end[1])
    to = (draw(st.sampled_from(ids)),) if draw(st.booleans()) else ()
    plan = Plan(FORMAT, WORKFLOW_ID, Workflow("random", tuple(tasks)), OPERATIONS, NULIB)
    return Case(plan, known, Rollback(to, (draw(st.sampled_from(ids)),) if draw(st.booleans()) else ()))


@settings(max_examples=300)
@given(cases(), st.integers(1, 3), st.data())
def test_what_is_to_be_undone_is_undone_behind_what_waited_for_it(case: Case, slots: int, data: st.DataObject) -> None:
    behind = waiting_for(case.plan.workflow)
    wanted = to_undo(case.plan, case.checkpoints, case.rollback)
    known = dict(case.checkpoints)
    schedule = Undoing(case.plan, known, case.rollback, at(0))
    running: list[str] = []
    done: list[str] = []
    while True:
        while len(running) < slots and schedule.can_start(0):
            task = schedule.start_next()
            task_id = task.id.removesuffix(SUFFIX)
            assert (behind[task_id] & wanted) <= set(done), f"{task_id} is undone before what waited for it"
            known[task.id] = attempts.started(known.get(task.id, TaskCheckpoint(FORMAT, task.id)), at(0), "w")
            schedule.settle(known[task.id], at(0))
            running.append(task.id)
        if not running:
            break
        undo = running.pop(data.draw(st.integers(0, len(running) - 1)))
        outcome = data.draw(st.sampled_from([Outcome.SUCCEEDED, Outcome.SUCCEEDED, Outcome.FAILED]))
        ended = attempts.ended(known[undo], Task(undo, "undo.again"), record(undo, outcome), at(0), cancelling=False)
        known[undo] = ended
        schedule.settle(ended, at(0))
        done.append(undo.removesuffix(SUFFIX))
        if data.draw(st.integers(0, 4)) == 4 and not running:  # as after a crash: the same are left
            schedule = Undoing(case.plan, known, case.rollback, at(0))
    assert set(done) == wanted
    assert len(done) == len(wanted), "none is undone twice"
    end = schedule.end(0)
    assert end is not None
    assert end[0] is WorkflowEvent.ROLLED_BACK
    failed = {task_id for task_id in wanted if known[task_id + SUFFIX].state is TaskState.FAILED}
    assert failed <= set(not_undone(case.plan, known, case.rollback))
    assert ("could not be undone" in end[1]) is bool(failed)
