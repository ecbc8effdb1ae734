"""What the files of one workflow say, as the page that `workflow status --json`, receipts and reports share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from provisioning.clock import boot_id, boottime, now
from provisioning.core.identifiers import WORKFLOW_ID
from provisioning.core.large import LARGE_TASKS
from provisioning.core.rollback import UNDONE, counted, not_undone, undo_id
from provisioning.core.scheduler import Now, Schedule
from provisioning.core.states import ENDED_TASKS, ENDED_WORKFLOWS, TaskState, WorkflowState
from provisioning.core.workflow import (
    AppliedRequest,
    Attempt,
    Plan,
    Submission,
    Task,
    TaskCheckpoint,
    Workflow,
    WorkflowCheckpoint,
)
from provisioning.decoding import converted
from provisioning.errors import Invalid, NotFound, Problem, ProvisioningError
from provisioning.processes import is_alive
from provisioning.storage import reading
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import Spool
from provisioning.views.text import instant

ABANDONED = "abandoned"
"""Shown for a running workflow that nobody holds. Not a state: whoever works the spool next takes it on."""
REJECTED = "rejected"
"""Shown for a submission that could not be claimed: it never became a workflow."""
LOST_PLAN = "damaged: plan.json is not there, so its tasks are not known"
BACK = frozenset({WorkflowState.ROLLING_BACK, WorkflowState.ROLLED_BACK})
DAMAGED = "damaged"
"""Shown for a workflow whose files cannot be read."""
ENDED = frozenset({*map(str, ENDED_WORKFLOWS), REJECTED})
OVER = ENDED | {DAMAGED}
"""Nothing more comes of these by itself."""

Page = dict[str, Any]
Seen = tuple[tuple[int, int], TaskCheckpoint]
"""A task's checkpoint, behind what tells its file from every other: inode and time of change."""


def workflow_status(folder: WorkflowFolder) -> Page:
    """The page of a workflow, results included; Damaged where it seems to be queued and nobody could ever claim it."""
    page = WorkflowView(folder).page()
    if page["state"] == WorkflowState.QUEUED:
        folder.refuse_unless_waiting()
    return page


def brief_status(folder: WorkflowFolder) -> Page:
    """The page of a large workflow with a few of its tasks: those that wait for a person, have failed, or run.

    It needs neither the plan nor a file of each task; its counts are about a second old. `tasks_left_out` says how many
    are not in it. Of one that is not large, has no summary yet or was rolled back, it is the page with all of them.
    """
    checkpoint, summary = folder.workflow(), folder.summary()
    if checkpoint is None or summary is None or checkpoint.rollback is not None:
        return workflow_status(folder)
    view = WorkflowView(folder)
    page = {**view.head(), **view.known(checkpoint)}
    if checkpoint.state not in ENDED_WORKFLOWS:
        page["counts"] = dict(summary.counts)
    shown = [(operation, folder.task(task_id)) for task_id, operation in summary.tasks.items()]
    tasks = [_noted(operation, each) for operation, each in shown if each.held or each.state in _NOTED]
    page["held"] = [each.task_id for _, each in shown if each.held and each.state is TaskState.PENDING]
    return {**page, "tasks": tasks, "tasks_left_out": sum(page["counts"].values()) - len(tasks)}


_NOTED = (TaskState.RUNNING, TaskState.FAILED)


def _noted(operation: str, checkpoint: TaskCheckpoint) -> Page:
    """A task of a page without a plan."""
    return {
        "task_id": checkpoint.task_id,
        "operation": operation,
        "state": str(checkpoint.state),
        "reason": checkpoint.reason,
        "waiting_for": ["held"] if checkpoint.state is TaskState.PENDING else [],
        "attempts": [_attempt(attempt) for attempt in checkpoint.attempts],
        "result": None,
    }


def waiting_for_disk(page: Page, shortage: str) -> Page:
    """The page of a workflow that has not ended, on a disk that lets nothing start: what waits, waits for that."""
    if page["state"] == WorkflowState.QUEUED:
        page["reason"] = f"waiting for disk space: {shortage}"
    for task in page["tasks"]:
        task["waiting_for"] = ["disk" if reason == "slot" else reason for reason in task["waiting_for"]]
    return page


def shown_state(checkpoint: WorkflowCheckpoint) -> str:
    """The workflow's state, or that a running one has nobody who runs it."""
    if checkpoint.state is not WorkflowState.RUNNING or (checkpoint.holder and is_alive(checkpoint.holder)):
        return str(checkpoint.state)
    return ABANDONED


def shown_counts(folder: WorkflowFolder, checkpoint: WorkflowCheckpoint) -> dict[str, int]:
    """Tasks by state, as of the last change of the workflow; of a large one that has not ended about a second old."""
    large = sum(checkpoint.counts.values()) > LARGE_TASKS and checkpoint.state not in ENDED_WORKFLOWS
    summary = folder.summary() if large else None
    return dict(summary.counts if summary else checkpoint.counts)


def shown_reason(folder: WorkflowFolder, checkpoint: WorkflowCheckpoint) -> str:
    """Why the workflow is in its state; where its plan is lost, that."""
    if not os.path.lexists(folder.path / "plan.json"):
        return LOST_PLAN
    return "cancelling" if checkpoint.cancelling and not checkpoint.ended_at else checkpoint.reason


def ended_tasks(counts: Mapping[str, int]) -> int:
    """How many of the counted tasks have ended."""
    return sum(counts.get(state, 0) for state in (*ENDED_TASKS, UNDONE))


class WorkflowView:
    """One workflow's files, read again and again: only those that changed are parsed anew."""

    def __init__(self, folder: WorkflowFolder) -> None:
        self.folder = folder
        self._submission: Submission | None = None
        self._plan: Plan | None = None
        self._seen: dict[str, Seen] = {}

    def glance(self) -> Page:
        """The page without results: they may be large, and progress does not show them."""
        checkpoint = self.folder.workflow()  # before the tasks: what it says has ended, they say too
        self._plan = self._plan or self.folder.plan()
        if checkpoint is None:
            return {**self.head(), "tasks": [], "tasks_left_out": 0}
        head = {**self.head(), **self.known(checkpoint), "tasks_left_out": 0}
        if self._plan is None:
            return {**head, "tasks": []}
        return self._whole(head, self._plan, checkpoint, self._checkpoints())

    def _whole(
        self, head: Page, plan: Plan, checkpoint: WorkflowCheckpoint, checkpoints: dict[str, TaskCheckpoint]
    ) -> Page:
        """The page with every task."""
        workflow = plan.workflow
        ids = {task.id for task in workflow.tasks}
        known = [each for task_id, each in checkpoints.items() if task_id in ids]
        schedule = scheduled(workflow, checkpoint, known)
        held = [each.task_id for each in known if is_held(each, checkpoint)]
        tasks = [task_page(task, schedule, checkpoints.get(task.id)) for task in workflow.tasks]
        page = {**head, "held": held, "counts": schedule.counts(), "tasks": tasks}
        if len(known) < len(checkpoints) or checkpoint.state in BACK:
            _show_undos(page, plan, checkpoints, checkpoint)
        return page

    def page(self) -> Page:
        """Everything about the workflow, results included: the shape of `workflow status --json`."""
        page = self.glance()
        for task in page["tasks"]:
            seen = self._seen.get(task["task_id"])
            task["result"] = self.folder.result(seen[1]) if seen else None
        return page

    def params(self) -> dict[str, Any]:
        """What tasks were called with, secrets as `***`, of those whose params hold references; as of the last look."""
        return {name: seen.params for name, (_, seen) in self._seen.items() if seen.params is not None}

    def head(self) -> Page:
        """What its submission says."""
        self._submission = submission = self._submission or self.folder.submission()
        return {
            "workflow_id": submission.workflow_id,
            "name": submission.name,
            "infra": submission.infra,
            "state": str(WorkflowState.QUEUED),
            "reason": "",
            "operator": submission.operator,
            "door": submission.door,
            "priority": submission.priority,
            "submitted_at": instant(submission.submitted_at),
            "not_before": instant(submission.not_before) if submission.not_before else None,
            "started_at": None,
            "ended_at": None,
            "requests": [],
            "held": [],
            "counts": {str(TaskState.PENDING): submission.tasks},
        }

    def known(self, checkpoint: WorkflowCheckpoint) -> Page:
        """What the workflow's checkpoint says, without its tasks'."""
        return {
            "state": shown_state(checkpoint),
            "reason": shown_reason(self.folder, checkpoint),
            "started_at": instant(checkpoint.started_at) if checkpoint.started_at else None,
            "ended_at": instant(checkpoint.ended_at) if checkpoint.ended_at else None,
            "requests": [_request(applied) for applied in checkpoint.applied],
            "counts": dict(checkpoint.counts),
        }

    def _checkpoints(self) -> dict[str, TaskCheckpoint]:
        """All task checkpoints there are, by task; a file that is the one already read is not read again."""
        seen: dict[str, Seen] = {}
        for name in reading.list_names(self.folder.path / "tasks"):
            if name.endswith(".json"):
                self._look_at(name.removesuffix(".json"), seen)
        self._seen = seen
        return {task_id: checkpoint for task_id, (_, checkpoint) in seen.items()}

    def _look_at(self, task_id: str, seen: dict[str, Seen]) -> None:
        """Add a task's checkpoint to `seen`; FileNotFoundError where it has none."""
        found = os.stat(self.folder.path / "tasks" / f"{task_id}.json")
        signature = (found.st_ino, found.st_mtime_ns)
        old = self._seen.get(task_id)
        seen[task_id] = old if old and old[0] == signature else (signature, self.folder.task(task_id))


def scheduled(workflow: Workflow, checkpoint: WorkflowCheckpoint, known: Iterable[TaskCheckpoint]) -> Schedule:
    """What follows from the checkpoints for every task of the workflow."""
    schedule = Schedule(workflow, known, Now(now(), boottime(), boot_id()))
    schedule.paused = checkpoint.state is WorkflowState.PAUSED
    schedule.cancelling = checkpoint.cancelling
    if checkpoint.state in ENDED_WORKFLOWS:
        cancelled = checkpoint.state is WorkflowState.CANCELLED
        last = TaskState.CANCELLED if cancelled else TaskState.SKIPPED
        schedule.close(last, checkpoint.reason or str(last))
    return schedule


def is_held(task: TaskCheckpoint, checkpoint: WorkflowCheckpoint) -> bool:
    """Whether the task waits for a person."""
    asked = checkpoint.state in (WorkflowState.RUNNING, WorkflowState.PAUSED)
    return asked and task.held and task.state is TaskState.PENDING


def _request(applied: AppliedRequest) -> Page:
    return {
        "verb": applied.verb,
        "operator": applied.operator,
        "at": instant(applied.at),
        **({"tasks": list(applied.tasks)} if applied.tasks else {}),
    }


def task_page(task: Task, schedule: Schedule, checkpoint: TaskCheckpoint | None) -> Page:
    """A task of a page, without its result."""
    index = schedule.index[task.id]
    page: Page = {
        "task_id": task.id,
        "operation": task.operation,
        "state": str(schedule.states[index]),
        "reason": schedule.reasons.get(index, checkpoint.reason if checkpoint else ""),
        "waiting_for": schedule.waiting_for(task.id),
        "attempts": [_attempt(attempt) for attempt in checkpoint.attempts] if checkpoint else [],
        "result": None,
    }
    if checkpoint and checkpoint.backoff and schedule.states[index] is TaskState.PENDING:
        page["next_attempt_at"] = instant(checkpoint.backoff.at)
    return page


def _show_undos(
    page: Page, plan: Plan, checkpoints: Mapping[str, TaskCheckpoint], workflow: WorkflowCheckpoint
) -> None:
    """Add to a page what has been undone, and what has not."""
    page["counts"] = counted({task["task_id"]: task["state"] for task in page["tasks"]}, checkpoints)
    for task in page["tasks"]:
        undo = checkpoints.get(undo_id(task["task_id"]))
        if undo is None:
            continue
        attempts = [_attempt(attempt) for attempt in undo.attempts]
        task["undo"] = {"state": str(undo.state), "reason": undo.reason, "attempts": attempts}
        if undo.state is TaskState.SUCCEEDED:
            task["state"], task["reason"] = UNDONE, ""
    if workflow.state in BACK:
        left = not_undone(plan, checkpoints, workflow.rollback)
        page["not_undone"] = [{"task_id": task_id, "reason": reason} for task_id, reason in left.items()]


def _attempt(attempt: Attempt) -> Page:
    return {
        "attempt": attempt.number,
        "outcome": str(attempt.outcome) if attempt.outcome else None,
        "started_at": instant(attempt.started_at),
        "ended_at": instant(attempt.ended_at) if attempt.ended_at else None,
        "exit_code": attempt.exit_code,
        "error": msgspec.structs.asdict(attempt.error) if attempt.error else None,
    }


class Rejected(Invalid):
    """A submission that was put aside at its claim: it never became a workflow."""

    code = "rejected"

    def __init__(self, workflow_id: str, path: Path) -> None:
        super().__init__(_reasons(path))
        self.message = f"workflow {workflow_id} was rejected; its files are in {path}"
        self.details = {"workflow_id": workflow_id, "state": REJECTED, "folder": str(path)}
        self.path = path


def _reasons(path: Path) -> list[Problem]:
    """Why the submission in that folder was rejected."""
    try:
        listed = msgspec.json.decode(reading.read_regular(path / "reason.json", 1 << 22))["problems"]
        return [converted(each, Problem) for each in listed]
    except (OSError, ProvisioningError, KeyError, TypeError, msgspec.MsgspecError):
        return [Problem("rejected", "the reason cannot be read", file=str(path / "reason.json"))]


def rejections(spool: Spool) -> dict[str, Path]:
    """The folders of what was rejected, by workflow_id; the latest of each."""
    named = ((name.partition("-")[2], spool.rejected / name) for name in sorted(reading.list_names(spool.rejected)))
    return {workflow_id: path for workflow_id, path in named if WORKFLOW_ID.match(workflow_id)}


def find(spool: Spool, prefix: str) -> WorkflowFolder:
    """The folder of the one workflow whose id starts so; Rejected where that one was rejected."""
    folder, missing = None, None
    try:
        folder = spool.find(prefix)
    except NotFound as error:
        missing = error
    if folder is not None and folder.workflow_id == prefix:
        return folder
    near = {each: path for each, path in rejections(spool).items() if prefix and each.startswith(prefix)}
    if prefix in near:
        raise Rejected(prefix, near[prefix])
    ids = {*near, *(each for each in spool.workflow_ids() if prefix and each.startswith(prefix))}
    if near and len(ids) == 1:
        raise Rejected(*near.popitem())
    if near and len(ids) > 1:
        raise NotFound(f"{prefix!r} begins {len(ids)} workflow ids", hint="type more of it")
    if folder is None:
        raise missing or NotFound(f"no workflow {prefix!r} in {spool.root}", hint="see: provisioning workflow list")
    return folder
