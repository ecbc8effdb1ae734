"""What the files of one workflow say, as the page that `workflow status --json`, receipts and reports share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from provisioning.clock import boot_id, boottime, now
from provisioning.core.scheduler import Now, Schedule
from provisioning.core.states import ENDED_WORKFLOWS, TaskState, WorkflowState
from provisioning.core.workflow import AppliedRequest, Attempt, Plan, Task, TaskCheckpoint, WorkflowCheckpoint
from provisioning.errors import NotFound, Problem
from provisioning.processes import is_alive
from provisioning.storage import files
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import Spool
from provisioning.views.text import instant

ABANDONED = "abandoned"
"""Shown for a running workflow that nobody holds. Not a state: whoever works the spool next takes it on."""
REJECTED = "rejected"
"""Shown for a submission that could not be claimed: it never became a workflow."""
ENDED = frozenset({*map(str, ENDED_WORKFLOWS), REJECTED})

Page = dict[str, Any]


def workflow_status(folder: WorkflowFolder) -> Page:
    """The page of a workflow, results included."""
    return WorkflowView(folder).page()


def shown_state(checkpoint: WorkflowCheckpoint) -> str:
    """The workflow's state, or that a running one has nobody who runs it."""
    held = checkpoint.holder is not None and is_alive(checkpoint.holder)
    return str(checkpoint.state) if held or checkpoint.state is not WorkflowState.RUNNING else ABANDONED


class WorkflowView:
    """One workflow's files, read again and again: only those that changed are parsed anew."""

    def __init__(self, folder: WorkflowFolder) -> None:
        self.folder = folder
        self._plan: Plan | None = None
        self._seen: dict[str, tuple[tuple[int, int], TaskCheckpoint]] = {}

    def glance(self) -> Page:
        """The page without results: they may be large, and progress does not show them."""
        checkpoint = self.folder.workflow()  # before the tasks: what it says has ended, they say too
        self._plan = self._plan or self.folder.plan()
        if checkpoint is None or self._plan is None:
            return self._queued()
        workflow = self._plan.workflow
        checkpoints = self._checkpoints()
        ids = {task.id for task in workflow.tasks}
        known = [each for task_id, each in checkpoints.items() if task_id in ids]
        schedule = Schedule(workflow, known, Now(now(), boottime(), boot_id()))
        schedule.paused = checkpoint.state is WorkflowState.PAUSED
        schedule.cancelling = checkpoint.cancelling
        if checkpoint.state in ENDED_WORKFLOWS:
            cancelled = checkpoint.state is WorkflowState.CANCELLED
            last = TaskState.CANCELLED if cancelled else TaskState.SKIPPED
            schedule.close(last, checkpoint.reason or str(last))
        head = self._head()
        return {
            **head,
            "state": shown_state(checkpoint),
            "reason": "cancelling" if checkpoint.cancelling and not checkpoint.ended_at else checkpoint.reason,
            "started_at": instant(checkpoint.started_at) if checkpoint.started_at else None,
            "ended_at": instant(checkpoint.ended_at) if checkpoint.ended_at else None,
            "requests": [_request(applied) for applied in checkpoint.applied],
            "held": [each.task_id for each in known if each.held and each.state is TaskState.PENDING],
            "counts": schedule.counts(),
            "tasks": [_task(task, schedule, checkpoints.get(task.id)) for task in workflow.tasks],
        }

    def page(self) -> Page:
        """Everything about the workflow, in the shape that DESIGN §8 gives."""
        page = self.glance()
        for task in page["tasks"]:
            seen = self._seen.get(task["task_id"])
            task["result"] = self.folder.result(seen[1]) if seen else None
        return page

    def last_error(self, task_id: str) -> Any:
        """The error of the task's latest attempt; None where it has none."""
        last = self.folder.task(task_id).last
        return last.error if last else None

    def _head(self) -> Page:
        submission = self.folder.submission()
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

    def _queued(self) -> Page:
        return {**self._head(), "tasks": []}

    def _checkpoints(self) -> dict[str, TaskCheckpoint]:
        """All task checkpoints there are, by task; a file that is the one already read is not read again."""
        seen: dict[str, tuple[tuple[int, int], TaskCheckpoint]] = {}
        for name in files.list_names(self.folder.path / "tasks"):
            task_id = name.removesuffix(".json")
            if task_id == name:
                continue
            found = os.stat(self.folder.path / "tasks" / name)
            signature = (found.st_ino, found.st_mtime_ns)
            old = self._seen.get(task_id)
            seen[task_id] = old if old and old[0] == signature else (signature, self.folder.task(task_id))
        self._seen = seen
        return {task_id: checkpoint for task_id, (_, checkpoint) in seen.items()}


def _request(applied: AppliedRequest) -> Page:
    return {
        "verb": applied.verb,
        "operator": applied.operator,
        "at": instant(applied.at),
        **({"tasks": list(applied.tasks)} if applied.tasks else {}),
    }


def _task(task: Task, schedule: Schedule, checkpoint: TaskCheckpoint | None) -> Page:
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


def _attempt(attempt: Attempt) -> Page:
    return {
        "attempt": attempt.number,
        "outcome": str(attempt.outcome) if attempt.outcome else None,
        "started_at": instant(attempt.started_at),
        "ended_at": instant(attempt.ended_at) if attempt.ended_at else None,
        "exit_code": attempt.exit_code,
        "error": msgspec.structs.asdict(attempt.error) if attempt.error else None,
    }


class Rejection(NamedTuple):
    """A submission that the orchestrator put aside at its claim, and why."""

    workflow_id: str
    path: Path
    problems: tuple[Problem, ...]


def rejection(spool: Spool, prefix: str) -> Rejection:
    """What was rejected under the id that starts so; NotFound where nothing was."""
    for name in files.list_names(spool.rejected):
        workflow_id = name.partition("-")[2]
        if not workflow_id.startswith(prefix):
            continue
        try:
            data = files.read_regular(spool.rejected / name / "reason.json", 1 << 22)
            listed = msgspec.json.decode(data)["problems"]
            problems = tuple(msgspec.convert(each, Problem) for each in listed)
        except (OSError, KeyError, TypeError, msgspec.MsgspecError):
            problems = (Problem("rejected", "the reason cannot be read", file=name),)
        return Rejection(workflow_id, spool.rejected / name, problems)
    raise NotFound(f"no workflow {prefix!r} in {spool.root}", hint="see: provisioning workflow list")
