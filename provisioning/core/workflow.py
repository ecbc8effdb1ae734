"""Workflows, tasks and attempts as values, and the records of them; states change by `apply_…` alone."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any

import msgspec

from provisioning.core.catalogue import Operation
from provisioning.core.identifiers import LOCAL, ChosenId, Digest, Executing, OperationName, Process, TaskId, Ulid
from provisioning.core.states import (
    TASK_TRANSITIONS,
    WORKFLOW_TRANSITIONS,
    Outcome,
    TaskEvent,
    TaskState,
    WorkflowEvent,
    WorkflowState,
)

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""An instant with its zone: one without cannot be compared with any other."""

FORMAT = 1
"""Version of every file that holds one of these values."""

# `gc=False`: what is decoded from JSON has no rings, and to look for some in a million structs takes its time.

FUTILE = ("invalid-", "not-found")
"""How the last part of an error's code begins where trying again cannot help."""

TOO_OFTEN = "interrupted-too-often"
"""Why a task has failed that was interrupted so often that it is given up."""
INTERRUPTIONS_ALLOWED = 3
"""So many attempts of one task may be interrupted before it counts as failed."""
STOPPED = "provisioning::attempt::stopped"
"""Why an attempt was interrupted that the orchestrator itself has ended: that says nothing of its task."""


class Retry(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """When a failed attempt is followed by another."""

    max_attempts: int = 1
    backoff: str = "exponential"
    """`exponential` doubles the delay with each attempt; `fixed` keeps it."""
    initial_delay_seconds: float = 5.0
    max_delay_seconds: float = 300.0
    on: tuple[str, ...] = ()
    """Patterns of error codes (`provisioning::upcloud::*`), `exit:75` or `timeout`; none means every failure
    but those whose code ends in `::invalid-…` or `::not-found`: the same input will be as wrong again."""

    def delay_seconds(self, failures: int) -> float:
        """The backoff after that many failed attempts."""
        factor = 2.0 ** min(failures - 1, 60) if self.backoff == "exponential" else 1.0
        return min(self.initial_delay_seconds * factor, self.max_delay_seconds)

    def allows(self, record: OutcomeRecord, failures: int) -> bool:
        """Whether another attempt follows the last of `failures` failed ones."""
        if failures >= self.max_attempts:
            return False
        if not self.on:
            case = record.error.code.rpartition("::")[2] if record.error else ""
            return not case.startswith(FUTILE)
        facts = [record.error.code if record.error else ""]
        if record.exit_code is not None:
            facts.append(f"exit:{record.exit_code}")
        if record.outcome is Outcome.TIMED_OUT:
            facts.append("timeout")
        return any(fnmatchcase(fact, pattern) for pattern in self.on for fact in facts)


class Condition(msgspec.Struct, frozen=True):
    """What must be found in the result of another task; else the task is skipped."""

    task: TaskId
    path: str
    """`result`, or what of it: `result.present`."""
    equals: Any


class Undo(msgspec.Struct, frozen=True, omit_defaults=True):
    """The operation that reverses a task."""

    operation: OperationName
    params: dict[str, Any] | None = None
    """A template: `${task.params.name}` and `${task.result.id}` are those of the task. None: by name, from both."""
    timeout_seconds: float | None = None
    retry: Retry | None = None


class Task(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A node of a workflow. What is None takes the operation's default when the plan is made."""

    id: TaskId
    operation: OperationName
    params: dict[str, Any] = {}
    depends_on: tuple[TaskId, ...] = ()
    """Tasks that must have succeeded."""
    after: tuple[TaskId, ...] = ()
    """Tasks that must have ended, however."""
    timeout_seconds: float | None = None
    retry: Retry | None = None
    on_interrupt: str | None = None
    """`rerun`, `probe` or `fail`."""
    expected_seconds: float | None = None
    """So long an attempt that succeeds takes, as far as anybody knows: it decides who goes first, and nothing else."""
    references: tuple[str, ...] = ()
    """What the params refer to by `${…}` and is known only when the task starts: `tasks.web.result.ip`. Where there
    is something, the params are a template, and a literal `${` is `$${` in them; else they are taken as they are."""
    when: Condition | None = None
    on_failure: str | None = None
    """`stop`, `continue` or `rollback` when this task fails, in place of what the workflow says."""
    undo: Undo | None = None
    preserve: bool = False
    """It is never undone."""
    group: str | None = None
    """The concurrency group that it belongs to; how much room that has, the config says."""
    executor: Executing | None = None
    """Where its attempts are made; None leaves that to the config and the operation."""


class Workflow(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a manifest asks for, validated."""

    name: str
    tasks: tuple[Task, ...]
    infra: str = "default"
    priority: int = 50
    max_parallel: int | None = None
    on_failure: str = "stop"
    not_before: Instant | None = None
    expires_at: Instant | None = None
    id: ChosenId | None = None
    """The submitter's own name for it: the same id is the same workflow, however often it is submitted."""
    target_host: str | None = None


class Submission(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who submitted a manifest, and what must be known of it before it is claimed."""

    format: int
    workflow_id: Ulid
    name: str
    infra: str
    operator: str
    door: str
    """How it came in: `cli`, `drop` or `receive`."""
    digest: Digest
    submitted_at: Instant
    tasks: int
    priority: int = 50
    not_before: Instant | None = None
    expires_at: Instant | None = None
    id: ChosenId | None = None
    origin: str = ""


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a claimed workflow will do; written once, so that nothing that changes later changes it."""

    format: int
    workflow_id: Ulid
    workflow: Workflow
    operations: dict[OperationName, Operation]
    nulib: Digest
    """Digest of the operations' tree, kept in the spool as `nulib/<digest>/`."""


class TaskError(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Why an attempt failed: a code to act on, a message and what to do."""

    code: str
    msg: str = ""
    help: str = ""
    retry_after: float | None = None
    """So many seconds no other attempt makes sense, where the operation could say it."""


class OutcomeRecord(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How attempt `attempt` ended: published once by the worker that ran it."""

    format: int
    workflow_id: Ulid
    task_id: TaskId
    attempt: int
    outcome: Outcome
    started_at: Instant
    ended_at: Instant
    exit_code: int | None = None
    signal: int | None = None
    error: TaskError | None = None
    result: Any = None
    log_bytes: int = 0
    log_dropped_bytes: int = 0
    leftovers: tuple[int, ...] = ()
    """Processes of the attempt that outlived it and were ended, by pid."""


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One numbered try of a task, as its checkpoint remembers it."""

    number: int
    started_at: Instant
    boot_id: str
    worker: Ulid
    """Name of the worker's folder under the spool's `tmp/`, whose lock it holds while it lives."""
    ended_at: Instant | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    error: TaskError | None = None
    probe: bool = False
    """It did not do the task's work but asked the operation's probe whether that is done."""
    executor: Executing = LOCAL
    """Where it is made. On Slurm `worker` names the spool's folder in the shared directory."""


class Backoff(msgspec.Struct, frozen=True, gc=False):
    """The instant before which no further attempt starts, on the clock of one boot and on the wall."""

    boot_id: str
    boottime: float
    """CLOCK_BOOTTIME in seconds."""
    at: Instant


class TaskCheckpoint(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The durable state of one task. A task without one is pending."""

    format: int
    task_id: TaskId
    state: TaskState = TaskState.PENDING
    attempts: tuple[Attempt, ...] = ()
    counted_from: int = 1
    """Number of the first attempt that the retry policy counts: a retry asked for by a person starts anew."""
    backoff: Backoff | None = None
    probing: bool = False
    """An interrupted attempt may have done its work or not; the next one asks the operation's probe."""
    held: bool = False
    """An interrupted attempt may have done its work or not; a person must say what now."""
    reason: str = ""
    params: dict[str, Any] | None = None
    """What the latest attempt was called with, secrets as `***`, where the task's params hold references."""

    @property
    def last(self) -> Attempt | None:
        """The latest attempt."""
        return self.attempts[-1] if self.attempts else None

    def failures(self) -> int:
        """Failed attempts that the retry policy counts; a probe that did not succeed is none."""
        return sum(a.outcome in (Outcome.FAILED, Outcome.TIMED_OUT) and not a.probe for a in self._counted())

    def interruptions(self) -> int:
        """Interrupted attempts since a person last asked for a retry; those that were stopped on purpose are none."""
        lost = (a for a in self._counted() if a.outcome is Outcome.INTERRUPTED)
        return sum(a.error is None or a.error.code != STOPPED for a in lost)

    def _counted(self) -> Iterable[Attempt]:
        return (attempt for attempt in self.attempts if attempt.number >= self.counted_from)


class AppliedRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request that changed a workflow: what, who, when."""

    request_id: Ulid
    verb: str
    operator: str
    at: Instant
    tasks: tuple[TaskId, ...] = ()


class Rollback(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a person has asked to be rolled back."""

    to: tuple[TaskId, ...] = ()
    """Only what waits for one of these is undone; none means all."""
    preserve: tuple[TaskId, ...] = ()
    """These are not undone."""


class WorkflowCheckpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """The durable state of a workflow."""

    format: int
    workflow_id: Ulid
    state: WorkflowState
    operator: str
    submitted_at: Instant
    boot_id: str
    holder: Process | None = None
    """Who held the workflow's lock when this was written: for views only."""
    started_at: Instant | None = None
    ended_at: Instant | None = None
    reason: str = ""
    host_crashed: bool = False
    """The host may have gone down under it: starts are made durable from then on, so that one that causes it counts."""
    cancelling: bool = False
    """A cancel was asked for, and running attempts are being ended."""
    rollback: Rollback | None = None
    """A rollback was asked for, and of what."""
    applied: tuple[AppliedRequest, ...] = ()
    counts: dict[str, int] = {}
    """Tasks by state when this was written: for views only."""


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a person asks of a workflow that exists."""

    format: int
    request_id: Ulid
    workflow_id: Ulid
    verb: str
    """`cancel`, `pause`, `resume`, `retry` or `rollback`."""
    operator: str
    at: Instant
    tasks: tuple[TaskId, ...] = ()
    preserve: tuple[TaskId, ...] = ()
    """What a rollback leaves as it is."""


class InvalidTransition(Exception):
    """An event that the table has no row for: a defect of the program, never of its input."""


def apply_task(checkpoint: TaskCheckpoint, event: TaskEvent, **changes: Any) -> TaskCheckpoint:
    """The task's checkpoint after `event`, with `changes` to its other fields."""
    state = TASK_TRANSITIONS.get((checkpoint.state, event))
    if state is None:
        raise InvalidTransition(f"task {checkpoint.task_id} is {checkpoint.state} and cannot take {event}")
    return msgspec.structs.replace(checkpoint, state=state, **changes)


def apply_workflow(checkpoint: WorkflowCheckpoint, event: WorkflowEvent, **changes: Any) -> WorkflowCheckpoint:
    """The workflow's checkpoint after `event`, with `changes` to its other fields."""
    state = WORKFLOW_TRANSITIONS.get((checkpoint.state, event))
    if state is None:
        raise InvalidTransition(f"workflow {checkpoint.workflow_id} is {checkpoint.state} and cannot take {event}")
    return msgspec.structs.replace(checkpoint, state=state, **changes)
