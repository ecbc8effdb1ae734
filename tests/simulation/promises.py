"""What must be true of every history, whatever went wrong in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from provisioning.core.graph import Graph
from provisioning.core.rollback import SUFFIX, is_undo, undo_id
from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.core.workflow import Workflow
from provisioning.errors import NotFound, Problem
from provisioning.execution.executor import Key
from provisioning.storage.check import check
from provisioning.storage.spool import Spool
from tests.property.reference import Reference
from tests.simulation.worker import Begin, End
from tests.simulation.world import World


@dataclass
class Said:
    """What people were told, and what they did themselves."""

    workflows: dict[str, Workflow] = field(default_factory=dict)
    """All that somebody tried to submit."""
    accepted: set[str] = field(default_factory=set)
    ids: dict[str, Workflow] = field(default_factory=dict)
    of_ids: dict[str, str] = field(default_factory=dict)
    """The workflow_id that was said for an id."""
    requests: dict[str, set[str]] = field(default_factory=dict)
    """Of each workflow, the request ids that were taken."""
    retried: dict[str, int] = field(default_factory=dict)
    cleaned: set[str] = field(default_factory=set)
    """What may have been cleaned up."""
    damaged: set[str] = field(default_factory=set)


def may_begin(world: World, said: Said, key: Key) -> None:
    """An attempt begins: nothing else of its task lives, and what it waits for has happened and is on record."""
    if key.workflow_id in said.damaged:
        return
    living = [worker.key for worker in world.living() if worker.key != key]
    same = [other for other in living if other[:2] == key[:2]]
    assert not same, f"{key} began while {same[0]} lived"
    _holds_what_it_wants(world, key)
    workflow = said.workflows[key.workflow_id]
    mine = [other for other in living if other.workflow_id == key.workflow_id]
    assert len(mine) < (workflow.max_parallel or 1000), f"{key} began beside {len(mine)} others"
    if is_undo(key.task_id):
        _may_undo(world, said, key, mine)
        return
    assert not any(is_undo(other.task_id) for other in mine), f"{key} began while something was undone"
    task = next(task for task in workflow.tasks if task.id == key.task_id)
    again = [each for each in world.trace if isinstance(each, Begin) and each.key == key]
    lost = task.operation == "work.again" and all(each.boot != world.boot for each in again)
    assert not again or lost, f"{key} began twice"
    folder = world.spool.workflow(key.workflow_id)
    for other in (*task.depends_on, *task.after):
        assert all(each.task_id != other for each in mine), f"{key} began while {other} lived"
    for other in task.depends_on:
        ends = [e for e in world.trace if isinstance(e, End) and e.key[:2] == (key.workflow_id, other)]
        assert ends, f"{key} began before {other}"
        found = [record.outcome for end in ends if (record := folder.outcome(other, end.key.attempt))]
        assert Outcome.SUCCEEDED in found, f"{key} began and {other} had not succeeded, or its outcome is gone: {found}"
    if task.when is not None:
        result = folder.result(folder.task(task.when.task))
        assert result == {"present": task.when.equals}, f"{key} began and {task.when.task} had returned {result}"


def _holds_what_it_wants(world: World, key: Key) -> None:
    """Nothing lives that holds a target or the room in a group that the attempt must have."""
    wanted = {worker.key: worker.request.wanted for worker in world.workers.values() if worker.request is not None}
    living = [each for worker in world.living() if worker.key != key for each in wanted[worker.key]]
    for each in wanted[key]:
        held = [other for other in living if other.name == each.name]
        full = len(held) >= each.room if each.exclusive else any(other.exclusive for other in held)
        assert not full, f"{key} began while others held {each.name}"


def _may_undo(world: World, said: Said, key: Key, mine: list[Key]) -> None:
    """An undo begins: nothing but undos lives, none of them of what waits for its task."""
    workflow = said.workflows[key.workflow_id]
    assert all(is_undo(other.task_id) for other in mine), f"{key} began while {mine} lived"
    task_id = key.task_id.removesuffix(SUFFIX)
    task = next(task for task in workflow.tasks if task.id == task_id)
    assert task.undo is not None
    behind = Graph(workflow.tasks).behind([task_id]) - {task_id}
    early = [other for other in mine if other.task_id.removesuffix(SUFFIX) in behind]
    assert not early, f"{key} began while {early} lived"
    again = [each for each in world.trace if isinstance(each, Begin) and each.key == key]
    lost = task.undo.operation == "work.undo" and all(each.boot != world.boot for each in again)
    assert not again or lost, f"{key} began twice"


def states(spool: Spool, said: Said) -> dict[str, str]:
    """The state of every whole workflow that is there."""
    found = {}
    for workflow_id in said.workflows:
        if workflow_id in said.damaged:
            continue
        try:
            checkpoint = spool.find(workflow_id).workflow()
        except NotFound:
            continue
        found[workflow_id] = str(checkpoint.state) if checkpoint else "queued"
    return found


def runs(spool: Spool, workflow_id: str) -> bool:
    """Whether its files say that an attempt is under way: an orchestrator that has just begun does not know yet."""
    return any(checkpoint.state is TaskState.RUNNING for checkpoint in spool.workflow(workflow_id).tasks())


def waits_for_a_person(spool: Spool, workflow_id: str) -> bool:
    """Whether a task of it was interrupted and nobody knows whether its work is done."""
    return any(checkpoint.held for checkpoint in spool.workflow(workflow_id).tasks())


def check_all(spool: Spool, world: World, said: Said) -> None:
    """What must be true in the end."""
    whole = set(said.workflows) - said.damaged
    there = set(spool.claimed_ids())
    left = whole & set(spool.incoming_ids())
    assert not left, f"never claimed: {left}"
    lost = said.accepted - there - said.cleaned - said.damaged
    assert not lost, f"accepted and lost: {lost}"
    for workflow_id in sorted(whole & there):
        _check_workflow(spool, world, said, workflow_id)
    _check_after(world, said)
    for name, workflow_id in said.of_ids.items():
        twins = [each for each in there - said.damaged if spool.workflow(each).submission().id == name]
        assert set(twins) <= {workflow_id}, f"{name} is {twins}"
    problems = [problem for problem in check(spool.root) if not _is_allowed(problem, said)]
    assert not problems, problems


def _is_allowed(problem: Problem, said: Said) -> bool:
    """Whether somebody damaged that workflow, or a power cut may leave this: a start that may be lost, its end not."""
    parts = Path(problem.file).parts
    names = (part.partition(".")[0] for part in parts)
    workflow_id = next((name for name in names if name in said.workflows), "")
    if workflow_id in said.damaged or problem.code != "unknown-attempt":
        return workflow_id in said.damaged
    task_id = parts[-1].split(".")[0]
    tasks = {task.id: task for task in said.workflows[workflow_id].tasks}
    if is_undo(task_id):
        undo = tasks[task_id.removesuffix(SUFFIX)].undo
        return undo is not None and undo.operation == "work.undo"
    return task_id in tasks and tasks[task_id].operation == "work.again"


def _check_workflow(spool: Spool, world: World, said: Said, workflow_id: str) -> None:
    workflow = said.workflows[workflow_id]
    folder = spool.workflow(workflow_id)
    retries = said.retried.get(workflow_id, 0)
    checkpoint = folder.workflow()
    assert checkpoint is not None, f"{workflow_id} has no checkpoint"
    applied = {each.request_id for each in checkpoint.applied}
    assert said.requests.get(workflow_id, set()) <= applied, f"{workflow_id}: what was asked of it was not done"
    reference = Reference(workflow)
    for task in workflow.tasks:
        known = folder.task(task.id)
        reference.learn(known)
        assert known.state is not TaskState.RUNNING, f"{workflow_id}/{task.id} runs for ever"
        effects = world.effects.get((workflow_id, task.id), 0)
        if task.operation != "work.again":
            assert effects <= 1 + retries, f"{workflow_id}/{task.id} was done {effects} times"
        if known.state is TaskState.SUCCEEDED:
            assert effects >= 1, f"{workflow_id}/{task.id} is called done and was not"
            record = folder.outcome(task.id, known.last.number) if known.last else None
            said_so = record is not None and record.outcome is Outcome.SUCCEEDED
            assert said_so, f"{workflow_id}/{task.id} is called done and its outcome is {record}"
        undo = folder.task(undo_id(task.id))
        assert undo.state is not TaskState.RUNNING, f"the undo of {workflow_id}/{task.id} runs for ever"
        undone = world.effects.get((workflow_id, undo.task_id), 0)
        if undo.state is TaskState.SUCCEEDED:
            assert undone >= 1, f"{workflow_id}/{task.id} is called undone and is not"
        if task.undo and task.undo.operation == "work.undo-once":
            assert undone <= 1 + retries, f"{workflow_id}/{task.id} was undone {undone} times"
        begun = known.state is TaskState.SUCCEEDED and task.undo is not None
        if checkpoint.state is WorkflowState.ROLLED_BACK and begun and checkpoint.rollback is None:
            over = undo.state in (TaskState.SUCCEEDED, TaskState.FAILED)
            assert over, f"{workflow_id} is called rolled back, and {task.id} was not undone: {undo.state}"
        numbers = [attempt.number for attempt in known.attempts]
        in_order = numbers == sorted(set(numbers))  # with gaps, where an attempt never began
        assert in_order, f"{workflow_id}/{task.id} has the attempts {numbers}"
    if checkpoint.state in (WorkflowState.SUCCEEDED, WorkflowState.FAILED):
        due = reference.end()
        assert due == checkpoint.state, (
            f"{workflow_id} is called {checkpoint.state} and not {due}: {reference.states()}"
        )


def _check_after(world: World, said: Said) -> None:
    """Nothing of what a task comes after began once it had begun, unless a person asked for it again.

    Idempotent work may be done again after a power cut, which may take back the records of what it came to.
    """
    begun = [each for each in world.trace if isinstance(each, Begin)]
    for i, (key, boot) in enumerate(begun):
        if said.retried.get(key.workflow_id) or key.workflow_id in said.damaged:
            continue
        tasks = {task.id: task for task in said.workflows[key.workflow_id].tasks}
        if key.task_id not in tasks:  # an undo
            continue
        for other in begun[i:]:
            if other.key.workflow_id != key.workflow_id or other.key.task_id not in tasks[key.task_id].after:
                continue
            before = any(each.key[:2] == other.key[:2] for each in begun[:i])
            again = before and other.boot != boot and tasks[other.key.task_id].operation == "work.again"
            assert again, f"{other.key} began after {key}"
