"""The states of workflows and tasks, the events that change them, and the two tables that say how."""

from __future__ import annotations

from enum import StrEnum


class TaskState(StrEnum):
    """Where a task stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class WorkflowState(StrEnum):
    """Where a workflow stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """Lost: whether it did its work is not known."""
    NOT_STARTED = "not_started"
    """Nothing of it has happened: the disk had no room for its outcome, or its worker never began."""


class TaskEvent(StrEnum):
    """A fact that changes the state of a task."""

    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    POSTPONED = "postponed"
    """The attempt failed and the policy allows another, after a backoff."""
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    REOPENED = "reopened"


class WorkflowEvent(StrEnum):
    """A fact that changes the state of a workflow."""

    CLAIMED = "claimed"
    PAUSED = "paused"
    RESUMED = "resumed"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REOPENED = "reopened"
    ROLLING_BACK = "rolling_back"
    """Nothing of it runs any more, and what it has done is undone from now on."""
    ROLLED_BACK = "rolled_back"


_T, _TE, _W, _WE = TaskState, TaskEvent, WorkflowState, WorkflowEvent

TASK_TRANSITIONS: dict[tuple[TaskState, TaskEvent], TaskState] = {
    (_T.PENDING, _TE.STARTED): _T.RUNNING,
    (_T.PENDING, _TE.SKIPPED): _T.SKIPPED,
    (_T.PENDING, _TE.CANCELLED): _T.CANCELLED,
    (_T.RUNNING, _TE.SUCCEEDED): _T.SUCCEEDED,
    (_T.RUNNING, _TE.FAILED): _T.FAILED,
    (_T.RUNNING, _TE.POSTPONED): _T.PENDING,
    (_T.RUNNING, _TE.INTERRUPTED): _T.PENDING,
    (_T.RUNNING, _TE.CANCELLED): _T.CANCELLED,
    (_T.SUCCEEDED, _TE.REOPENED): _T.PENDING,
    (_T.FAILED, _TE.REOPENED): _T.PENDING,
    (_T.CANCELLED, _TE.REOPENED): _T.PENDING,
    (_T.SKIPPED, _TE.REOPENED): _T.PENDING,
    (_T.PENDING, _TE.REOPENED): _T.PENDING,
}

WORKFLOW_TRANSITIONS: dict[tuple[WorkflowState, WorkflowEvent], WorkflowState] = {
    (_W.QUEUED, _WE.CLAIMED): _W.RUNNING,
    (_W.RUNNING, _WE.PAUSED): _W.PAUSED,
    (_W.PAUSED, _WE.RESUMED): _W.RUNNING,
    (_W.RUNNING, _WE.SUCCEEDED): _W.SUCCEEDED,
    (_W.RUNNING, _WE.FAILED): _W.FAILED,
    (_W.RUNNING, _WE.CANCELLED): _W.CANCELLED,
    (_W.PAUSED, _WE.CANCELLED): _W.CANCELLED,
    (_W.PAUSED, _WE.REOPENED): _W.RUNNING,
    (_W.SUCCEEDED, _WE.REOPENED): _W.RUNNING,
    (_W.FAILED, _WE.REOPENED): _W.RUNNING,
    (_W.CANCELLED, _WE.REOPENED): _W.RUNNING,
    (_W.RUNNING, _WE.ROLLING_BACK): _W.ROLLING_BACK,
    (_W.PAUSED, _WE.ROLLING_BACK): _W.ROLLING_BACK,
    (_W.SUCCEEDED, _WE.ROLLING_BACK): _W.ROLLING_BACK,
    (_W.FAILED, _WE.ROLLING_BACK): _W.ROLLING_BACK,
    (_W.CANCELLED, _WE.ROLLING_BACK): _W.ROLLING_BACK,
    (_W.ROLLED_BACK, _WE.ROLLING_BACK): _W.ROLLING_BACK,
    (_W.ROLLING_BACK, _WE.ROLLED_BACK): _W.ROLLED_BACK,
    (_W.ROLLING_BACK, _WE.CANCELLED): _W.CANCELLED,
    (_W.ROLLED_BACK, _WE.REOPENED): _W.RUNNING,
}

ENDED_TASKS = frozenset({_T.SUCCEEDED, _T.FAILED, _T.CANCELLED, _T.SKIPPED})
ENDED_WORKFLOWS = frozenset({_W.SUCCEEDED, _W.FAILED, _W.CANCELLED, _W.ROLLED_BACK})
