"""The two state machines, row by row and gap by gap, and when a failed attempt is followed by another."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from provisioning.core.states import (
    ENDED_TASKS,
    ENDED_WORKFLOWS,
    TASK_TRANSITIONS,
    WORKFLOW_TRANSITIONS,
    Outcome,
    TaskEvent,
    TaskState,
    WorkflowEvent,
    WorkflowState,
)
from provisioning.core.workflow import (
    FORMAT,
    InvalidTransition,
    Retry,
    TaskCheckpoint,
    WorkflowCheckpoint,
    apply_task,
    apply_workflow,
)
from tests.simulation.values import EPOCH, WORKFLOW_ID, checkpoint, record

TASK_PAIRS = list(itertools.product(TaskState, TaskEvent))
WORKFLOW_PAIRS = list(itertools.product(WorkflowState, WorkflowEvent))


def workflow_checkpoint(state: WorkflowState) -> WorkflowCheckpoint:
    return WorkflowCheckpoint(FORMAT, WORKFLOW_ID, state, "alice", EPOCH, "boot-1")


@pytest.mark.parametrize(("state", "event"), [pair for pair in TASK_PAIRS if pair in TASK_TRANSITIONS])
def test_a_task_takes_every_event_of_the_table(state: TaskState, event: TaskEvent) -> None:
    before = TaskCheckpoint(FORMAT, "a", state)
    after = apply_task(before, event, reason="because")
    assert (after.state, after.reason, before.state) == (TASK_TRANSITIONS[state, event], "because", state)


@pytest.mark.parametrize(("state", "event"), [pair for pair in TASK_PAIRS if pair not in TASK_TRANSITIONS])
def test_a_task_takes_no_other_event(state: TaskState, event: TaskEvent) -> None:
    with pytest.raises(InvalidTransition, match=f"task a is {state} and cannot take {event}"):
        apply_task(TaskCheckpoint(FORMAT, "a", state), event)


@pytest.mark.parametrize(("state", "event"), [pair for pair in WORKFLOW_PAIRS if pair in WORKFLOW_TRANSITIONS])
def test_a_workflow_takes_every_event_of_the_table(state: WorkflowState, event: WorkflowEvent) -> None:
    after = apply_workflow(workflow_checkpoint(state), event, reason="because")
    assert (after.state, after.reason) == (WORKFLOW_TRANSITIONS[state, event], "because")


@pytest.mark.parametrize(("state", "event"), [pair for pair in WORKFLOW_PAIRS if pair not in WORKFLOW_TRANSITIONS])
def test_a_workflow_takes_no_other_event(state: WorkflowState, event: WorkflowEvent) -> None:
    with pytest.raises(InvalidTransition, match=f"is {state} and cannot take {event}"):
        apply_workflow(workflow_checkpoint(state), event)


def reachable(first: Any, table: dict[Any, Any]) -> set[Any]:
    found, new = {first}, {first}
    while new:
        new = {after for (state, _), after in table.items() if state in new} - found
        found |= new
    return found


def test_every_state_can_be_reached_and_left_only_by_a_person_once_it_is_an_end() -> None:
    assert reachable(TaskState.PENDING, TASK_TRANSITIONS) == set(TaskState)
    assert reachable(WorkflowState.QUEUED, WORKFLOW_TRANSITIONS) == set(WorkflowState)
    assert {event for (state, event) in TASK_TRANSITIONS if state in ENDED_TASKS} == {TaskEvent.REOPENED}
    asked = {WorkflowEvent.REOPENED, WorkflowEvent.ROLLING_BACK}
    assert {event for (state, event) in WORKFLOW_TRANSITIONS if state in ENDED_WORKFLOWS} == asked


def test_only_a_running_task_can_succeed() -> None:
    before = {state for (state, _), after in TASK_TRANSITIONS.items() if after is TaskState.SUCCEEDED}
    assert before == {TaskState.RUNNING}


@pytest.mark.parametrize(
    ("retry", "failures", "delay"),
    [
        (Retry(initial_delay_seconds=2, max_delay_seconds=60), 1, 2),
        (Retry(initial_delay_seconds=2, max_delay_seconds=60), 2, 4),
        (Retry(initial_delay_seconds=2, max_delay_seconds=60), 5, 32),
        (Retry(initial_delay_seconds=2, max_delay_seconds=60), 6, 60),
        (Retry(initial_delay_seconds=2, max_delay_seconds=60), 10**6, 60),
        (Retry(backoff="fixed", initial_delay_seconds=2, max_delay_seconds=60), 9, 2),
        (Retry(backoff="fixed", initial_delay_seconds=90, max_delay_seconds=60), 1, 60),
        (Retry(initial_delay_seconds=0, max_delay_seconds=60), 7, 0),
    ],
)
def test_the_delay_grows_to_its_limit(retry: Retry, failures: int, delay: float) -> None:
    assert retry.delay_seconds(failures) == delay


@pytest.mark.parametrize(
    ("on", "outcome", "rest", "allowed"),
    [
        ((), Outcome.FAILED, {}, True),
        ((), Outcome.TIMED_OUT, {}, True),
        (("exit:75",), Outcome.FAILED, {"exit_code": 75}, True),
        (("exit:75",), Outcome.FAILED, {"exit_code": 7}, False),
        (("exit:75",), Outcome.FAILED, {}, False),
        (("exit:7*",), Outcome.FAILED, {"exit_code": 75}, True),
        (("timeout",), Outcome.TIMED_OUT, {"code": "provisioning::attempt::timeout"}, True),
        (("timeout",), Outcome.FAILED, {"code": "timeout-ish"}, False),
        (("provisioning::upcloud::*",), Outcome.FAILED, {"code": "provisioning::upcloud::busy"}, True),
        (("provisioning::upcloud::*",), Outcome.FAILED, {"code": "provisioning::aws::busy"}, False),
        (("PROVISIONING::*",), Outcome.FAILED, {"code": "provisioning::aws::busy"}, False),
        (("exit:1", "timeout"), Outcome.TIMED_OUT, {}, True),
    ],
)
def test_what_is_tried_again(on: tuple[str, ...], outcome: Outcome, rest: dict[str, Any], allowed: bool) -> None:
    retry = Retry(max_attempts=2, on=on)
    assert retry.allows(record("a", outcome, **rest), 1) is allowed


@pytest.mark.parametrize(("failures", "allowed"), [(1, True), (2, True), (3, False), (4, False)])
def test_so_many_attempts_and_no_more(failures: int, allowed: bool) -> None:
    assert Retry(max_attempts=3).allows(record("a", Outcome.FAILED), failures) is allowed


def test_without_a_policy_there_is_one_attempt() -> None:
    assert not Retry().allows(record("a", Outcome.FAILED), 1)


def test_a_retry_asked_for_by_a_person_counts_anew() -> None:
    outcomes = [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.INTERRUPTED, Outcome.NOT_STARTED, Outcome.FAILED]
    before = checkpoint("a", TaskState.PENDING, *outcomes)
    assert (before.failures(), before.interruptions()) == (3, 1)
    after = checkpoint("a", TaskState.PENDING, *outcomes, counted_from=4)
    assert (after.failures(), after.interruptions()) == (1, 0)


def test_a_task_never_started_has_no_last_attempt() -> None:
    assert TaskCheckpoint(FORMAT, "a").last is None
