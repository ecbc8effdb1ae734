"""What people ask of a workflow that exists: cancel, pause, resume, retry, rollback; applied by whoever holds it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from provisioning.clock import new_ulid, now
from provisioning.config import Config
from provisioning.core import attempts
from provisioning.core.rollback import SUFFIX, is_undo
from provisioning.core.states import ENDED_WORKFLOWS, TaskState, WorkflowEvent, WorkflowState
from provisioning.core.workflow import FORMAT, AppliedRequest, Request, Rollback, TaskCheckpoint
from provisioning.errors import NotFound, Refused
from provisioning.execution.nulib import Nulib
from provisioning.orchestrator.claim import instant, take
from provisioning.orchestrator.complaints import FAULTS
from provisioning.orchestrator.held import Held
from provisioning.orchestrator.recovery import cancel_adopted, settle
from provisioning.storage import files
from provisioning.storage.spool import Spool

_UNFINISHED = (TaskState.FAILED, TaskState.CANCELLED, TaskState.SKIPPED)


def requests_stamp(spool: Spool) -> object:
    """What is another once a request has come or gone, or where another spool is at the path, or none.

    Of two changes in one tick of the kernel's clock it may show one, before Linux 6.13.
    """
    try:
        found = os.stat(spool.requests)
    except OSError:
        return object()
    return found.st_dev, found.st_ino, found.st_mtime_ns


def ask(  # noqa: PLR0913 - who asks what of which workflow, where
    spool: Spool,
    config: Config,
    load_nulib: Callable[[], Nulib],
    verb: str,
    workflow_id: str,
    *,
    operator: str,
    tasks: tuple[str, ...] = (),
    preserve: tuple[str, ...] = (),
) -> None:
    """Put the request into the spool, durably, and apply it at once if nobody holds the workflow.

    Refused or NotFound where it makes no sense; then nothing was asked, as after every other error.
    """
    refusal = objection(spool, verb, workflow_id, (*tasks, *preserve))
    if refusal is not None:
        raise refusal
    path = spool.request(Request(FORMAT, new_ulid(), workflow_id, verb, operator, now(), tasks, preserve))
    try:
        apply_unheld(spool, config, load_nulib, workflow_id)
    except FAULTS:
        if _take_back(spool, workflow_id, path):
            raise  # else it was applied, or is by its holder: what failed came after it, or is ours alone


def _take_back(spool: Spool, workflow_id: str, path: Path) -> bool:
    """Remove a request, unless it was applied or somebody may be about to; whether nothing of it stays.

    Under the workflow's lock, for only who has that applies a request.
    """
    try:
        lock = spool.lock(workflow_id)
    except FAULTS:  # a file of the workflow is in the way of all, or this process is at its own limits
        lock = None
    else:
        if lock is None and spool.folder_path(workflow_id) is not None:
            return False
    try:
        with contextlib.suppress(*FAULTS):
            checkpoint = spool.find(workflow_id).workflow()
            if checkpoint and any(path.name == f"{workflow_id}.{each.request_id}.json" for each in checkpoint.applied):
                return False  # the file is removed by whoever finds it
        files.remove(path)
        return True
    finally:
        if lock is not None:
            lock.release()


def objection(spool: Spool, verb: str, workflow_id: str, tasks: tuple[str, ...]) -> Refused | NotFound | None:
    """Why a request makes no sense now, or nothing."""
    folder = spool.find(workflow_id)
    checkpoint = folder.workflow()
    state = checkpoint.state if checkpoint else WorkflowState.QUEUED
    if plan := folder.plan():
        known = {task.id for task in plan.workflow.tasks}
        if unknown := [task for task in tasks if task not in known]:
            return NotFound(
                f"workflow {workflow_id} has no task {unknown[0]!r}",
                hint=f"see: provisioning workflow status {workflow_id}",
            )
    by_name = verb == "resume" or (verb == "retry" and not tasks)
    if by_name and state is WorkflowState.PAUSED and (waiting := [c.task_id for c in folder.tasks() if c.held]):
        again, end = (f"provisioning workflow {each} {workflow_id}" for each in ("retry", "cancel"))
        return Refused(
            f"task {waiting[0]} was interrupted and may have done its work or not: a person must say",
            hint=f"look, then: {again} --task {waiting[0]}, or: {end}",
        )
    allowed = {
        "cancel": state not in ENDED_WORKFLOWS,
        "pause": state in (WorkflowState.QUEUED, WorkflowState.RUNNING),
        "resume": state is WorkflowState.PAUSED,
        "retry": state in ENDED_WORKFLOWS or (state is WorkflowState.PAUSED and bool(tasks)),
        "rollback": state not in (WorkflowState.QUEUED, WorkflowState.ROLLING_BACK),
    }
    if not allowed[verb]:
        return Refused(
            f"workflow {workflow_id} is {state}: there is nothing to {verb}",
            hint=f"see: provisioning workflow status {workflow_id}",
        )
    if verb == "retry" and state is WorkflowState.SUCCEEDED and not tasks:
        return Refused(f"workflow {workflow_id} has succeeded", hint="name what to do again: --task ID")
    return None


def apply_unheld(spool: Spool, config: Config, load_nulib: Callable[[], Nulib], workflow_id: str) -> bool:
    """Apply what is asked of a workflow that nobody holds; False where its holder must.

    After letting go the requests are looked at again: one may have come while the lock was ours.
    """
    while spool.requests_of(workflow_id):
        held = take(spool, workflow_id, load_nulib)
        if held is None:
            if spool.folder_path(workflow_id) is None:  # rejected or cleaned up: nobody can ever apply it
                for path, _ in spool.requests_of(workflow_id):
                    files.remove(path)
            return False
        try:
            this = instant()
            for checkpoint in held.running():
                settle(spool, config, held, checkpoint, this)
            apply_all(spool, held)
            if held.checkpoint.cancelling:
                for checkpoint in held.running():
                    cancel_adopted(spool, checkpoint)
            goes_on = held.running() or held.checkpoint.state in ENDED_WORKFLOWS
            if not goes_on and (ended := held.schedule.end(this.boottime)):
                held.end(*ended, this)
        finally:
            held.release()
        spool.nudge()
    return True


def apply_all(spool: Spool, held: Held) -> bool:
    """Apply the requests about a workflow that this process holds; whether there were any."""
    found = spool.requests_of(held.workflow_id)
    for path, request in found:
        if all(applied.request_id != request.request_id for applied in held.checkpoint.applied):
            _apply(held, request)
        files.remove(path)  # only now: after a crash before this line it is found again, and known as applied
    return bool(found)


def _apply(held: Held, request: Request) -> None:
    this = instant()
    applied = (
        *held.checkpoint.applied,
        AppliedRequest(request.request_id, request.verb, request.operator, request.at, request.tasks),
    )
    state = held.checkpoint.state
    event: WorkflowEvent | None = None
    waits = any(checkpoint.held for checkpoint in held.checkpoints.values())
    changes: dict[str, object] = {"applied": applied}
    if request.verb == "cancel" and state not in ENDED_WORKFLOWS:
        changes |= {"cancelling": True, "reason": f"cancelled by {request.operator}"}
    elif request.verb == "pause" and state is WorkflowState.RUNNING:
        event = WorkflowEvent.PAUSED
        changes |= {"reason": f"paused by {request.operator}"}
    elif request.verb == "resume" and state is WorkflowState.PAUSED and not waits:
        event = WorkflowEvent.RESUMED
        changes |= {"reason": ""}
    elif request.verb == "retry" and not held.checkpoint.cancelling:
        _reopen(held, request.tasks)
        waits = any(checkpoint.held for checkpoint in held.checkpoints.values())
        if state in ENDED_WORKFLOWS or (state is WorkflowState.PAUSED and not waits):
            event = WorkflowEvent.REOPENED
            changes |= {"reason": "", "ended_at": None, "rollback": None}
    elif request.verb == "rollback" and state is not WorkflowState.ROLLING_BACK and not held.checkpoint.cancelling:
        _undo_again(held)
        changes |= {"rollback": Rollback(request.tasks, request.preserve)}
        changes |= {"reason": f"rollback asked by {request.operator}"}
        if not held.running():
            event = WorkflowEvent.ROLLING_BACK
            changes |= {"ended_at": None}
    if event is None:
        held.save(msgspec.structs.replace(held.checkpoint, **changes), "request")
    else:
        kind = "rollback begins" if event is WorkflowEvent.ROLLING_BACK else "request"
        held.change(event, this, kind, **changes)
    held.reschedule(this)
    held.tell(this.wall, "request", verb=request.verb, operator=request.operator, tasks=request.tasks or None)


def _reopen(held: Held, named: tuple[str, ...]) -> None:
    """Make pending again what did not succeed, and the named tasks with all that waits for them."""
    again = held.forward.graph.behind(named) | _to_be_done_again(held)
    for checkpoint in sorted(held.checkpoints.values(), key=lambda each: is_undo(each.task_id)):
        if is_undo(checkpoint.task_id):  # after the tasks: what has an undo that succeeded is known by that
            wanted = checkpoint.task_id.removesuffix(SUFFIX) in again
        else:
            wanted = checkpoint.state in _UNFINISHED or checkpoint.task_id in again
        if wanted and checkpoint.state is not TaskState.RUNNING:
            _reopened(held, checkpoint)


def _to_be_done_again(held: Held) -> set[str]:
    """The tasks that a rollback has undone, or may have: where that is not known, those that do no harm."""
    found = set()
    for undo in held.checkpoints.values():
        task_id = undo.task_id.removesuffix(SUFFIX)
        if not is_undo(undo.task_id) or undo.state is TaskState.PENDING:
            continue
        if undo.state is TaskState.SUCCEEDED or held.plan.operations[held.tasks[task_id].operation].idempotent:
            found.add(task_id)
    return found


def _undo_again(held: Held) -> None:
    """Make pending the undos that an earlier rollback could not do."""
    for checkpoint in list(held.checkpoints.values()):
        if is_undo(checkpoint.task_id) and checkpoint.state in _UNFINISHED:
            _reopened(held, checkpoint)


def _reopened(held: Held, checkpoint: TaskCheckpoint) -> None:
    after = attempts.reopened(checkpoint)
    held.folder.save_task(after, "request")
    held.checkpoints[after.task_id] = after
