"""What an ended or interrupted attempt means for its task: success, another attempt, a failure, or a person."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from provisioning.core.identifiers import LOCAL, Executing
from provisioning.core.scheduler import Now
from provisioning.core.states import Outcome, TaskEvent, TaskState
from provisioning.core.workflow import (
    INTERRUPTIONS_ALLOWED,
    STOPPED,
    TOO_OFTEN,
    Attempt,
    Backoff,
    OutcomeRecord,
    Retry,
    Task,
    TaskCheckpoint,
    TaskError,
    apply_task,
)

NOBODY = "0" * 26
"""Stands for the worker of an attempt of which only the outcome is known."""
UNKNOWN_BOOT = "unknown"
"""Stands for the boot of what is known after a crash or a damage alone: it is none that a host can have."""
NOT_THERE = "::not-found"
"""How the code of a probe's error ends when it says that the work has not been done."""
INTERRUPTED = "provisioning::attempt::interrupted"
"""Why an attempt was interrupted that nobody knows the end of."""
LONGEST_WISH_SECONDS = 3600.0
"""So long an operation may ask to be left alone before its next attempt."""
GIVE_UP = "give-up"
"""`on_interrupt` of an undo that must not be done twice: it has failed, and the rollback goes on."""
AGAIN_SECONDS = 5.0
"""Before an attempt that could not be started is made again."""


def is_told_by_outcome(checkpoint: TaskCheckpoint) -> bool:
    """Whether it says no more than the outcome of its only attempt, or that there is none yet."""
    if checkpoint.state not in (TaskState.RUNNING, TaskState.SUCCEEDED) or len(checkpoint.attempts) != 1:
        return False
    only = checkpoint.attempts[0]
    said_elsewhere = only.executor == LOCAL and not only.probe and not checkpoint.probing and checkpoint.params is None
    return said_elsewhere and only.number == 1 and checkpoint.counted_from == 1


def started(
    checkpoint: TaskCheckpoint,
    now: Now,
    worker: str,
    params: dict[str, Any] | None = None,
    *,
    executor: Executing = LOCAL,
) -> TaskCheckpoint:
    """The checkpoint that says that the next attempt is starting in `worker`, with what its references mean."""
    number = checkpoint.attempts[-1].number + 1 if checkpoint.attempts else 1
    attempt = Attempt(number=number, started_at=now.wall, boot_id=now.boot_id, worker=worker, executor=executor)
    if checkpoint.probing:
        attempt = msgspec.structs.replace(attempt, probe=True)
    known = (past for past in checkpoint.attempts if past.outcome is not Outcome.NOT_STARTED)  # those say nothing
    changes = {"attempts": (*known, attempt), "backoff": None, "reason": "", "params": params}
    return apply_task(checkpoint, TaskEvent.STARTED, **changes)


def known_by_outcome(
    checkpoint: TaskCheckpoint, number: int, now: Now, before: OutcomeRecord | None = None
) -> TaskCheckpoint:
    """The checkpoint of a task whose attempt has an outcome, while a power cut took the record of its start.

    `before` is the outcome of the latest attempt that the checkpoint knows.
    """
    attempt = Attempt(number=number, started_at=now.wall, boot_id=now.boot_id, worker=NOBODY)
    known_now = (told(past, before) if past.outcome is None and before else past for past in checkpoint.attempts)
    known = (past for past in known_now if past.outcome not in (None, Outcome.NOT_STARTED))
    attempts = (*known, attempt)
    if checkpoint.state is TaskState.RUNNING:
        return msgspec.structs.replace(checkpoint, attempts=attempts)
    return apply_task(checkpoint, TaskEvent.STARTED, attempts=attempts, backoff=None, reason="")


def told(attempt: Attempt, record: OutcomeRecord) -> Attempt:
    """The attempt as its outcome says that it ended."""
    return msgspec.structs.replace(
        attempt,
        started_at=record.started_at,
        ended_at=record.ended_at,
        outcome=record.outcome,
        exit_code=record.exit_code,
        error=record.error,
    )


def ended(  # noqa: PLR0913 - what ended, and who had asked for it
    checkpoint: TaskCheckpoint, task: Task, record: OutcomeRecord, now: Now, *, cancelling: bool, stopping: bool = False
) -> TaskCheckpoint:
    """The checkpoint after the outcome of its latest attempt is known.

    `cancelling` says that its workflow is being cancelled, `stopping` that the orchestrator ends what it runs.
    """
    if record.outcome is Outcome.CANCELLED and not cancelling:
        if stopping:
            return interrupted(checkpoint, task, now, "the orchestrator was told to stop at once", STOPPED)
        return interrupted(checkpoint, task, now, "the worker was told to end, but nobody had asked to cancel")
    attempt = told(checkpoint.attempts[-1], record)
    after = msgspec.structs.replace(checkpoint, attempts=(*checkpoint.attempts[:-1], attempt))
    if record.outcome is Outcome.SUCCEEDED:
        return apply_task(after, TaskEvent.SUCCEEDED, probing=False)
    if record.outcome is Outcome.CANCELLED:
        return apply_task(after, TaskEvent.CANCELLED, reason="cancelled")
    if attempt.probe:
        return _probed(after, record)
    retry = task.retry or Retry()
    failures = after.failures()
    if cancelling or not retry.allows(record, failures):
        return apply_task(after, TaskEvent.FAILED, reason=_reason(record))
    asked = record.error.retry_after if record.error else None
    delay = max(retry.delay_seconds(failures), min(asked or 0.0, LONGEST_WISH_SECONDS))
    backoff = Backoff(now.boot_id, now.boottime + delay, now.wall + timedelta(seconds=delay))
    return apply_task(after, TaskEvent.POSTPONED, backoff=backoff, reason=_reason(record))


def _probed(after: TaskCheckpoint, record: OutcomeRecord) -> TaskCheckpoint:
    """What a probe that did not succeed means: the work is not there and is done again, or nobody knows."""
    if record.error is not None and record.error.code.endswith(NOT_THERE):
        return apply_task(after, TaskEvent.POSTPONED, probing=False, reason="interrupted, and the probe found nothing")
    return apply_task(after, TaskEvent.POSTPONED, probing=False, held=True, reason=f"probe: {_reason(record)}")


def _reason(record: OutcomeRecord) -> str:
    return record.error.code if record.error else str(record.outcome)


def interrupted(checkpoint: TaskCheckpoint, task: Task, now: Now, why: str, code: str = INTERRUPTED) -> TaskCheckpoint:
    """The checkpoint after its latest attempt was lost: whether it did its work is not known."""
    attempt = msgspec.structs.replace(
        checkpoint.attempts[-1],
        ended_at=now.wall,
        outcome=Outcome.INTERRUPTED,
        error=TaskError(code, why),
    )
    after = msgspec.structs.replace(checkpoint, attempts=(*checkpoint.attempts[:-1], attempt))
    if after.interruptions() >= INTERRUPTIONS_ALLOWED:
        return apply_task(after, TaskEvent.FAILED, reason=TOO_OFTEN)
    changes: dict[str, Any] = {"reason": "interrupted"}
    if task.on_interrupt == "probe":
        changes["probing"] = True
    elif task.on_interrupt == GIVE_UP:
        return apply_task(after, TaskEvent.FAILED, reason="interrupted, and whether it did its work is not known")
    elif task.on_interrupt != "rerun":
        changes["held"] = True
    return apply_task(after, TaskEvent.INTERRUPTED, **changes)


def not_started(checkpoint: TaskCheckpoint, now: Now, why: str) -> TaskCheckpoint:
    """The checkpoint after an attempt that never began its work: it counts for nothing and is made again soon."""
    attempt = msgspec.structs.replace(
        checkpoint.attempts[-1],
        ended_at=now.wall,
        outcome=Outcome.NOT_STARTED,
        error=TaskError("provisioning::attempt::not-started", why),
    )
    backoff = Backoff(now.boot_id, now.boottime + AGAIN_SECONDS, now.wall + timedelta(seconds=AGAIN_SECONDS))
    return apply_task(
        checkpoint, TaskEvent.INTERRUPTED, attempts=(*checkpoint.attempts[:-1], attempt), backoff=backoff, reason=why
    )


def reopened(checkpoint: TaskCheckpoint) -> TaskCheckpoint:
    """The checkpoint of a task that a person wants done again: its attempts are counted anew."""
    number = checkpoint.attempts[-1].number + 1 if checkpoint.attempts else 1
    return apply_task(
        checkpoint, TaskEvent.REOPENED, counted_from=number, backoff=None, probing=False, held=False, reason=""
    )
