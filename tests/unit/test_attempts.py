"""What the end of an attempt means for its task: every outcome, the limits, and who must decide."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from provisioning.core import attempts
from provisioning.core.states import Outcome, TaskState
from provisioning.core.workflow import (
    FORMAT,
    INTERRUPTIONS_ALLOWED,
    InvalidTransition,
    Retry,
    Task,
    TaskCheckpoint,
    TaskError,
)
from tests.simulation.values import EPOCH, at, checkpoint, record

NOW = at(100)
LATER = at(200)


def task(**rest: Any) -> Task:
    return Task("a", "selftest.noop", **({"on_interrupt": "rerun"} | rest))


def running(*before: Outcome, **rest: Any) -> TaskCheckpoint:
    return checkpoint("a", TaskState.RUNNING, *before, None, **rest)


def ended(outcome: Outcome, *before: Outcome, cancelling: bool = False, **rest: Any) -> TaskCheckpoint:
    facts = {name: rest.pop(name) for name in ("code", "exit_code") if name in rest}
    result = record("a", outcome, len(before) + 1, **facts)
    return attempts.ended(running(*before), task(**rest), result, LATER, cancelling=cancelling)


def test_attempts_are_numbered_from_one() -> None:
    first = attempts.started(TaskCheckpoint(FORMAT, "a"), NOW, "w")
    assert first.state is TaskState.RUNNING
    assert first.last is not None
    assert (first.last.number, first.last.worker, first.last.boot_id) == (1, "w", "boot-1")
    assert (first.last.started_at, first.last.outcome) == (NOW.wall, None)
    again = attempts.started(ended(Outcome.FAILED, retry=Retry(max_attempts=2)), LATER, "v")
    assert [each.number for each in again.attempts] == [1, 2]
    assert (again.backoff, again.reason) == (None, "")


def test_a_running_task_is_not_started_again() -> None:
    with pytest.raises(InvalidTransition):
        attempts.started(running(), NOW, "w")


def test_success_is_the_end() -> None:
    after = ended(Outcome.SUCCEEDED, exit_code=0)
    assert (after.state, after.backoff, after.held) == (TaskState.SUCCEEDED, None, False)
    assert after.last is not None
    assert (after.last.outcome, after.last.exit_code, after.last.ended_at) == (Outcome.SUCCEEDED, 0, EPOCH)


def test_success_counts_although_a_cancel_came() -> None:
    assert ended(Outcome.SUCCEEDED, cancelling=True).state is TaskState.SUCCEEDED


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT])
def test_a_failure_is_tried_again_after_its_backoff(outcome: Outcome) -> None:
    after = ended(outcome, retry=Retry(max_attempts=2, initial_delay_seconds=7.0))
    assert after.state is TaskState.PENDING
    assert after.backoff is not None
    assert (after.backoff.boot_id, after.backoff.boottime) == ("boot-1", 207.0)
    assert after.backoff.at == LATER.wall + timedelta(seconds=7)
    assert after.reason == str(outcome)


@pytest.mark.parametrize(("wish", "seconds"), [(30.0, 30.0), (1.0, 7.0), (1e9, attempts.LONGEST_WISH_SECONDS)])
def test_an_error_that_says_when_makes_the_backoff_longer(wish: float, seconds: float) -> None:
    error = TaskError("provisioning::upcloud::busy", retry_after=wish)
    failed = msgspec.structs.replace(record("a", Outcome.FAILED, 1), error=error)
    retry = Retry(max_attempts=3, initial_delay_seconds=7.0)
    after = attempts.ended(running(), task(retry=retry), failed, LATER, cancelling=False)
    assert after.backoff is not None
    assert after.backoff.boottime == LATER.boottime + seconds


def test_the_last_failure_is_the_end_and_says_its_code() -> None:
    after = ended(Outcome.FAILED, Outcome.FAILED, code="provisioning::x::y", retry=Retry(max_attempts=2))
    assert (after.state, after.reason, after.backoff) == (TaskState.FAILED, "provisioning::x::y", None)


def test_no_retry_is_begun_once_a_cancel_was_asked() -> None:
    after = ended(Outcome.FAILED, cancelling=True, retry=Retry(max_attempts=9))
    assert after.state is TaskState.FAILED


def test_an_interruption_uses_up_no_retry() -> None:
    after = ended(Outcome.FAILED, Outcome.INTERRUPTED, Outcome.NOT_STARTED, retry=Retry(max_attempts=2))
    assert after.state is TaskState.PENDING
    assert after.backoff is not None
    assert after.backoff.boottime == LATER.boottime + Retry().initial_delay_seconds  # that of a first failure


def test_a_cancelled_attempt_ends_its_task_where_a_cancel_was_asked() -> None:
    after = ended(Outcome.CANCELLED, cancelling=True)
    assert (after.state, after.reason) == (TaskState.CANCELLED, "cancelled")


def test_a_cancelled_attempt_is_interrupted_where_none_was_asked() -> None:
    after = ended(Outcome.CANCELLED, cancelling=False)
    assert (after.state, after.held) == (TaskState.PENDING, False)
    assert after.last is not None
    assert after.last.outcome is Outcome.INTERRUPTED
    assert ended(Outcome.CANCELLED, on_interrupt="fail").held


def interrupted(*before: Outcome, policy: str = "rerun", **rest: Any) -> TaskCheckpoint:
    return attempts.interrupted(running(*before, **rest), task(on_interrupt=policy), LATER, "its worker died")


def test_an_interrupted_idempotent_task_is_pending_at_once() -> None:
    after = interrupted()
    assert (after.state, after.held, after.backoff) == (TaskState.PENDING, False, None)
    assert after.last is not None
    assert after.last.ended_at == LATER.wall
    assert after.last.error is not None
    assert after.last.error.msg == "its worker died"


def test_an_interrupted_task_that_may_have_done_its_work_waits_for_a_person() -> None:
    after = interrupted(policy="fail")
    assert (after.state, after.held) == (TaskState.PENDING, True)


@pytest.mark.parametrize("policy", ["rerun", "probe", "fail"])
def test_the_last_interruption_that_is_allowed_fails_the_task(policy: str) -> None:
    before = [Outcome.INTERRUPTED] * (INTERRUPTIONS_ALLOWED - 1)
    assert interrupted(*before[1:], policy=policy).state is TaskState.PENDING
    after = interrupted(*before, policy=policy)
    assert (after.state, after.reason, after.held) == (TaskState.FAILED, "interrupted-too-often", False)


def test_what_the_orchestrator_stopped_is_interrupted_and_counts_for_nothing() -> None:
    """Who is told to stop at once, however often, fails no task; in between, the others still count."""
    after = running()
    for number in range(1, 3 * INTERRUPTIONS_ALLOWED):
        result = record("a", Outcome.CANCELLED, number)
        after = attempts.ended(after, task(), result, LATER, cancelling=False, stopping=True)
        assert (after.state, after.reason, after.interruptions()) == (TaskState.PENDING, "interrupted", 0)
        after = attempts.started(after, LATER, "w")
    assert attempts.interrupted(after, task(), LATER, "its worker died").interruptions() == 1
    assert attempts.ended(
        running(), task(on_interrupt="fail"), record("a", Outcome.CANCELLED, 1), LATER, cancelling=False, stopping=True
    ).held


def test_a_cancel_that_was_asked_for_is_one_while_the_orchestrator_stops() -> None:
    after = attempts.ended(running(), task(), record("a", Outcome.CANCELLED, 1), LATER, cancelling=True, stopping=True)
    assert after.state is TaskState.CANCELLED


def test_interruptions_are_counted_from_the_last_retry_of_a_person() -> None:
    before = [Outcome.INTERRUPTED] * INTERRUPTIONS_ALLOWED
    assert interrupted(*before, counted_from=len(before) + 1).state is TaskState.PENDING


def test_what_never_began_counts_for_nothing() -> None:
    after = running()
    for number in range(1, 10):
        after = attempts.not_started(after, LATER, "no room")
        assert after.backoff is not None
        assert after.backoff.boottime == LATER.boottime + attempts.AGAIN_SECONDS
        assert (after.state, after.held, after.failures(), after.interruptions()) == (TaskState.PENDING, False, 0, 0)
        after = attempts.started(after, LATER, "w")
        assert after.attempts[-1].number == number + 1


def probed(outcome: Outcome, **rest: Any) -> TaskCheckpoint:
    """An interrupted task whose probe ended so."""
    asked = attempts.started(interrupted(policy="probe"), LATER, "w")
    assert asked.attempts[-1].probe
    result = record("a", outcome, 2, **rest)
    return attempts.ended(asked, task(on_interrupt="probe"), result, LATER, cancelling=False)


def test_an_interrupted_task_with_a_probe_asks_it_next() -> None:
    after = interrupted(policy="probe")
    assert (after.state, after.probing, after.held) == (TaskState.PENDING, True, False)


def test_a_probe_that_finds_the_work_done_is_success() -> None:
    after = probed(Outcome.SUCCEEDED)
    assert (after.state, after.probing) == (TaskState.SUCCEEDED, False)


def test_a_probe_that_finds_nothing_has_the_work_done_again() -> None:
    after = probed(Outcome.FAILED, code="provisioning::servers::not-found")
    assert (after.state, after.probing, after.held, after.failures()) == (TaskState.PENDING, False, False, 0)
    assert not attempts.started(after, LATER, "w").attempts[-1].probe


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT])
def test_a_probe_that_does_not_know_leaves_it_to_a_person(outcome: Outcome) -> None:
    after = probed(outcome, code="provisioning::servers::no-network")
    assert (after.state, after.probing, after.held) == (TaskState.PENDING, False, True)
    assert not attempts.reopened(after).held


def test_a_probe_that_is_interrupted_is_asked_again_and_counted() -> None:
    asked = attempts.started(interrupted(policy="probe"), LATER, "w")
    after = attempts.interrupted(asked, task(on_interrupt="probe"), LATER, "x")
    assert (after.probing, after.interruptions()) == (True, 2)
    asked = attempts.started(after, LATER, "w")
    assert attempts.interrupted(asked, task(on_interrupt="probe"), LATER, "x").state is TaskState.FAILED


@pytest.mark.parametrize("state", [TaskState.FAILED, TaskState.CANCELLED, TaskState.SUCCEEDED, TaskState.PENDING])
def test_reopened_is_as_new_but_remembers(state: TaskState) -> None:
    before = checkpoint("a", state, Outcome.INTERRUPTED, Outcome.FAILED, held=True, reason="x")
    after = attempts.reopened(before)
    assert (after.state, after.held, after.reason, after.backoff) == (TaskState.PENDING, False, "", None)
    assert (after.failures(), after.interruptions(), len(after.attempts)) == (0, 0, 2)
    assert attempts.started(after, NOW, "w").attempts[-1].number == 3


def test_a_task_that_never_started_is_reopened_too() -> None:
    assert attempts.reopened(TaskCheckpoint(FORMAT, "a", TaskState.SKIPPED)).counted_from == 1


def test_a_running_task_is_not_reopened() -> None:
    with pytest.raises(InvalidTransition):
        attempts.reopened(running())


def test_checkpoints_are_values() -> None:
    before = running()
    kept = msgspec.json.encode(before)
    attempts.ended(before, task(), record("a", Outcome.SUCCEEDED), NOW, cancelling=False)
    attempts.interrupted(before, task(), NOW, "x")
    assert msgspec.json.encode(before) == kept
