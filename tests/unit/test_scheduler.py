"""The schedule of one workflow and of several: order, limits, policies, backoff, persons, and loading."""

from __future__ import annotations

import random

import pytest

from provisioning.core.scheduler import GLANCE, Now, Schedule, due
from provisioning.core.states import Outcome, TaskState, WorkflowEvent
from provisioning.core.turns import Scheduler
from provisioning.core.workflow import Backoff
from tests.simulation.values import at, checkpoint, finish, schedule, started, state

PENDING, RUNNING, SUCCEEDED, FAILED = TaskState.PENDING, TaskState.RUNNING, TaskState.SUCCEEDED, TaskState.FAILED


def in_backoff(schedule: Schedule, task_id: str, seconds: float) -> None:
    backoff = Backoff("boot-1", seconds, at(seconds).wall)
    schedule.settle(checkpoint(task_id, PENDING, Outcome.FAILED, backoff=backoff), at(0))


# Order


def test_the_longest_path_starts_first() -> None:
    plan = schedule(["short:", "long:", "middle: long", "end: middle", "other:"], max_parallel=2)
    assert started(plan) == ["long", "short"]


def test_equals_start_in_the_order_of_the_manifest() -> None:
    assert started(schedule(["c:", "a:", "b:"])) == ["c", "a", "b"]


def test_a_task_starts_when_all_that_it_depends_on_has_succeeded() -> None:
    plan = schedule(["a:", "b:", "c: a b"])
    assert started(plan) == ["a", "b"]
    finish(plan, "a")
    assert started(plan) == []
    assert plan.waiting_for("c") == ["dependency:b"]
    finish(plan, "b")
    assert started(plan) == ["c"]
    assert plan.end(0) is None
    finish(plan, "c")
    assert plan.end(0) == (WorkflowEvent.SUCCEEDED, "")


# Guesses


def test_what_starts_next_is_what_is_ready_then_what_waits_for_nothing_but_that() -> None:
    plan = schedule(["a:", "b: a", "c: b", "d: c", "x:", "y: a x"], max_parallel=1)
    assert started(plan) == ["a"]
    assert plan.next_likely(["a"], 10) == ["x", "b", "c", "d"], "y waits for two"
    assert plan.next_likely(["a"], 2) == ["x", "b"]
    assert plan.next_likely(["elsewhere"], 1) == ["x"]
    finish(plan, "a")
    assert plan.next_likely([], 10)[:2] == ["b", "x"]


def test_nothing_starts_next_where_nothing_may_start() -> None:
    plan = schedule(["a:", "b: a"])
    started(plan)
    plan.paused = True
    assert plan.next_likely(["a"], 3) == []
    plan.paused, plan.cancelling = False, True
    assert plan.next_likely(["a"], 3) == []


def test_a_guess_costs_nothing_where_very_many_wait_for_one_task() -> None:
    plan = schedule(["a:", *(f"b{i}: a" for i in range(1000))])
    started(plan)
    assert len(plan.next_likely(["a"], 1000)) == GLANCE


def test_depends_on_and_after_the_same_task_is_one_edge() -> None:
    plan = schedule(["a:", "b: a ~a"])
    started(plan)
    finish(plan, "a")
    assert started(plan) == ["b"]


def test_max_parallel() -> None:
    plan = schedule(["a:", "b:", "c:"], max_parallel=2)
    assert started(plan) == ["a", "b"]
    assert plan.waiting_for("c") == ["max_parallel"]
    finish(plan, "a")
    assert started(plan) == ["c"]


def test_adopted_attempts_count_for_max_parallel() -> None:
    plan = schedule(["a:", "b:"], checkpoint("a", RUNNING, None), max_parallel=1)
    assert started(plan) == []
    finish(plan, "a")
    assert started(plan) == ["b"]


# Failures


def test_after_is_content_with_any_end() -> None:
    plan = schedule(["a:", "b: ~a", "c: a", "d: ~c"], on_failure="continue")
    started(plan)
    assert plan.waiting_for("b") == ["dependency:a"]
    finish(plan, "a", Outcome.FAILED)
    assert started(plan) == ["b", "d"]  # c was skipped, which is an end too
    assert state(plan, "c") == "skipped"


def test_skips_go_on_along_depends_on_and_say_why() -> None:
    plan = schedule(["a:", "b: a", "c: b", "d: c ~x", "x:"], on_failure="continue")
    assert started(plan) == ["a", "x"]
    finish(plan, "a", Outcome.FAILED)
    reasons = {task: plan.reasons[plan.index[task]] for task in "bcd"}
    assert reasons == {"b": "a failed", "c": "b skipped", "d": "c skipped"}
    assert plan.counts() == {"failed": 1, "running": 1, "skipped": 3}
    finish(plan, "x")
    assert plan.end(0) == (WorkflowEvent.FAILED, "1 of 5 tasks failed")


def test_stop_starts_nothing_new_after_a_failure() -> None:
    plan = schedule(["a:", "b:", "c:"], max_parallel=2)
    assert started(plan) == ["a", "b"]
    finish(plan, "a", Outcome.FAILED)
    assert started(plan) == []
    assert plan.waiting_for("c") == ["stopped"]
    assert plan.end(0) is None  # b still runs
    finish(plan, "b")
    assert plan.end(0) == (WorkflowEvent.FAILED, "1 of 3 tasks failed")


def test_stop_finishes_what_has_begun() -> None:
    plan = schedule(["a:", "b:", "c:"], max_parallel=2)
    started(plan)
    finish(plan, "a", Outcome.FAILED)
    in_backoff(plan, "b", 10)
    assert (started(plan, 9), plan.end(9)) == ([], None)
    assert started(plan, 10) == ["b"]


def test_a_start_that_was_withdrawn_has_not_begun() -> None:
    plan = schedule(["a:", "b:"])
    assert started(plan) == ["a", "b"]
    plan.withdraw("b")
    finish(plan, "a", Outcome.FAILED)
    assert started(plan) == []
    assert plan.end(0) == (WorkflowEvent.FAILED, "1 of 2 tasks failed")


def test_continue_starts_what_does_not_depend_on_the_failure() -> None:
    plan = schedule(["a:", "b: a", "c:", "d: c"], on_failure="continue", max_parallel=1)
    assert started(plan) == ["a"]
    finish(plan, "a", Outcome.FAILED)
    assert started(plan) == ["c"]
    finish(plan, "c")
    assert started(plan) == ["d"]


def test_a_running_task_whose_dependency_was_done_again_and_failed_is_not_tried_again() -> None:
    plan = schedule(["a:", "b: a", "c: b"], checkpoint("b", RUNNING, None), on_failure="continue")
    assert started(plan) == ["a"]
    finish(plan, "a", Outcome.FAILED)
    plan.settle(checkpoint("b", PENDING, Outcome.INTERRUPTED), at(0))
    assert started(plan) == []
    assert (state(plan, "b"), state(plan, "c")) == ("skipped", "skipped")


# Backoff


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (at(5), 30.0),
        (at(99), 30.0),
        (Now(at(20).wall, 3.0, "boot-2"), 13.0),  # ten seconds were left when the host came up again
        (Now(at(500).wall, 3.0, "boot-2"), 3.0),
    ],
)
def test_a_backoff_is_due_on_its_own_clock_or_after_a_boot_by_the_wall(now: Now, expected: float) -> None:
    assert due(Backoff("boot-1", 30.0, at(30).wall), now) == expected


def test_a_backoff_is_kept() -> None:
    plan = schedule(["a:"])
    started(plan)
    in_backoff(plan, "a", 10)
    assert plan.waiting_for("a") == ["backoff"]
    assert (plan.next_due(), started(plan, 9.9), plan.end(9.9)) == (10, [], None)
    assert started(plan, 10) == ["a"]


def test_a_task_in_its_backoff_waits_although_what_it_depends_on_is_loaded_as_done() -> None:
    waiting = checkpoint("b", PENDING, Outcome.FAILED, backoff=Backoff("boot-1", 10.0, at(10).wall))
    plan = schedule(["a:", "b: a"], checkpoint("a", SUCCEEDED, Outcome.SUCCEEDED), waiting)
    assert started(plan, 9) == []
    assert started(plan, 10) == ["b"]


def test_an_adopted_attempt_that_failed_is_not_tried_before_its_backoff() -> None:
    """The end of what it depends on, when it was loaded, must not have called it ready for later."""
    loaded = [checkpoint("a", SUCCEEDED, Outcome.SUCCEEDED), checkpoint("b", RUNNING, None)]
    plan = schedule(["a:", "b: a", "c:", "d: c"], *loaded, max_parallel=2)
    assert started(plan, 0) == ["c"]
    in_backoff(plan, "b", 10)
    assert started(plan, 9) == []
    assert started(plan, 10) == ["b"]


@pytest.mark.parametrize("why", ["max_parallel", "paused", "cancelling", "slots"])
def test_a_backoff_that_is_over_never_wakes_anyone_again(why: str) -> None:
    """`next_due` is what the loop sleeps until: were it in the past, the loop would spin."""
    plan = schedule(["a:", "b:"], max_parallel=1 if why == "max_parallel" else None)
    started(plan)
    if why == "max_parallel":
        plan.settle(checkpoint("b", RUNNING, None), at(0))
    in_backoff(plan, "a", 10)
    plan.paused, plan.cancelling = why == "paused", why == "cancelling"
    scheduler = Scheduler()
    scheduler.add("w", plan, 50)
    assert scheduler.next_due() == 10
    assert scheduler.starts(at(11), 0 if why == "slots" else 1) == []
    assert scheduler.ends(at(11)) == []
    assert scheduler.next_due() is None


# Persons


def test_a_held_task_starts_nothing_and_keeps_the_workflow_open() -> None:
    held = checkpoint("a", PENDING, Outcome.INTERRUPTED, held=True, reason="interrupted")
    plan = schedule(["a:", "b: a", "c:"], held)
    assert started(plan) == ["c"]
    finish(plan, "c")
    assert (started(plan, 10**9), plan.end(10**9)) == ([], None)
    assert (plan.waiting_for("a"), plan.waits_for_person()) == (["held"], "a")
    assert schedule(["a:"]).waits_for_person() is None


def test_a_held_task_that_is_skipped_needs_nobody() -> None:
    held = checkpoint("b", PENDING, Outcome.INTERRUPTED, held=True)
    plan = schedule(["a:", "b: a"], checkpoint("a", FAILED, Outcome.FAILED), held)
    assert (plan.waits_for_person(), state(plan, "b")) == (None, "skipped")
    assert plan.end(0) == (WorkflowEvent.FAILED, "1 of 2 tasks failed")


def test_a_held_task_stays_held_although_what_it_depends_on_is_loaded_as_done() -> None:
    held = checkpoint("b", PENDING, Outcome.INTERRUPTED, held=True)
    plan = schedule(["a:", "b: a"], checkpoint("a", SUCCEEDED, Outcome.SUCCEEDED), held)
    assert (started(plan), plan.end(0)) == ([], None)


def test_paused_starts_nothing_until_resumed() -> None:
    plan = schedule(["a:"])
    plan.paused = True
    assert (started(plan), plan.end(0), plan.waiting_for("a")) == ([], None, ["paused"])
    plan.paused = False
    assert started(plan) == ["a"]


def test_cancelling_ends_when_nothing_runs_any_more() -> None:
    plan = schedule(["a:", "b:"], max_parallel=1)
    assert started(plan) == ["a"]
    plan.cancelling = True
    assert plan.end(0) is None
    plan.settle(checkpoint("a", TaskState.CANCELLED, Outcome.CANCELLED), at(0))
    assert (started(plan), plan.end(0)) == ([], (WorkflowEvent.CANCELLED, "cancelled"))
    plan.close(TaskState.CANCELLED, "cancelled by alice")
    assert plan.counts() == {"cancelled": 2}
    assert plan.reasons[1] == "cancelled by alice"


def test_close_keeps_the_reasons_that_are_there() -> None:
    plan = schedule(["a:", "b: a", "c:"], max_parallel=1)
    started(plan)
    finish(plan, "a", Outcome.FAILED)
    plan.close(TaskState.SKIPPED, "1 of 3 tasks failed")
    assert plan.reasons == {1: "a failed", 2: "1 of 3 tasks failed"}


def test_withdraw_makes_ready_again() -> None:
    plan = schedule(["a:"])
    assert started(plan) == ["a"]
    plan.withdraw("a")
    assert (plan.running, plan.counts(), plan.waiting_for("a")) == (0, {"pending": 1}, ["slot"])
    assert started(plan) == ["a"]


def test_what_runs_or_has_ended_waits_for_nothing() -> None:
    plan = schedule(["a:", "b: a"])
    started(plan)
    assert plan.waiting_for("a") == []
    finish(plan, "a", Outcome.FAILED)
    assert plan.waiting_for("b") == []


def test_counts_always_add_up() -> None:
    plan = schedule([f"t{i}:" + (f" t{i - 1}" if i % 3 else "") for i in range(30)], on_failure="continue")
    generator = random.Random(7)
    running: list[str] = []
    while running := [*running, *started(plan)]:
        task = running.pop(generator.randrange(len(running)))
        finish(plan, task, generator.choice([Outcome.SUCCEEDED, Outcome.FAILED]))
        assert sum(plan.counts().values()) == 30
        assert plan.running == plan.counts().get("running", 0) == len(running)


# Loading


def test_a_derived_skip_outlives_a_checkpoint_that_says_pending() -> None:
    """After a retry by a person both are pending in their files; then a failed again and the process was killed."""
    reopened = checkpoint("b", PENDING, Outcome.FAILED, counted_from=2)
    plan = schedule(["a:", "b: a", "c: b"], checkpoint("a", FAILED, Outcome.FAILED), reopened)
    assert started(plan) == []
    assert plan.counts() == {"failed": 1, "skipped": 2}


def test_what_succeeded_stays_so_whatever_became_of_what_it_depended_on() -> None:
    both = [checkpoint("a", FAILED, Outcome.FAILED), checkpoint("b", SUCCEEDED, Outcome.SUCCEEDED)]
    for order in (both, both[::-1]):
        assert schedule(["a:", "b: a", "c: b"], *order, on_failure="continue").counts() == {
            "failed": 1,
            "pending": 1,
            "succeeded": 1,
        }


def test_retried_tasks_count_as_begun_only_from_the_retry() -> None:
    loaded = [checkpoint("a", FAILED, Outcome.FAILED), checkpoint("b", PENDING, Outcome.FAILED, counted_from=2)]
    assert started(schedule(["a:", "b:"], *loaded)) == []
    loaded[1] = checkpoint("b", PENDING, Outcome.INTERRUPTED)
    assert started(schedule(["a:", "b:"], *loaded)) == ["b"]


def test_who_waits_for_a_target_and_may_not_start_any_more_is_not_waited_for() -> None:
    plan = schedule(["a:", "b:", "c:"], on_failure="stop")
    assert set(started(plan)) == {"a", "b", "c"}
    plan.park("b", "target:default/thing/x")
    finish(plan, "a")
    assert plan.end(0) is None
    finish(plan, "c", Outcome.FAILED)
    assert plan.end(0) == (WorkflowEvent.FAILED, "1 of 3 tasks failed")
