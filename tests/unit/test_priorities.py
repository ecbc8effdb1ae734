"""Several workflows in one scheduler: who starts first, who has ended, and when to look again."""

from __future__ import annotations

from provisioning.core.identifiers import ulid
from provisioning.core.scheduler import Schedule
from provisioning.core.states import Outcome, TaskState, WorkflowEvent
from provisioning.core.turns import End, Scheduler, Start, rank
from provisioning.core.workflow import Backoff
from tests.simulation.values import at, checkpoint, schedule, started

PENDING, SUCCEEDED = TaskState.PENDING, TaskState.SUCCEEDED


def in_backoff(schedule: Schedule, task_id: str, seconds: float) -> None:
    backoff = Backoff("boot-1", seconds, at(seconds).wall)
    schedule.settle(checkpoint(task_id, PENDING, Outcome.FAILED, backoff=backoff), at(0))


def test_priority_then_age() -> None:
    scheduler = Scheduler()
    for workflow_id, priority in [("2", 50), ("1", 50), ("3", 90)]:
        scheduler.add(workflow_id, schedule(["a:", "b:"]), priority)
    assert scheduler.best_ready(at(0)) == rank(90, "3")
    assert scheduler.starts(at(0), 3) == [Start("3", "a"), Start("3", "b"), Start("1", "a")]
    assert scheduler.starts(at(0), 2) == [Start("1", "b"), Start("2", "a")]
    assert scheduler.best_ready(at(0)) == rank(50, "2")
    assert scheduler.starts(at(0), 9) == [Start("2", "b")]
    assert (scheduler.best_ready(at(0)), scheduler.starts(at(0), 9)) == (None, [])


def test_no_slot_no_start() -> None:
    scheduler = Scheduler()
    scheduler.add("1", schedule(["a:"]), 50)
    assert scheduler.starts(at(0), 0) == []
    assert scheduler.starts(at(0), -1) == []
    assert scheduler.starts(at(0), 1) == [Start("1", "a")]


def test_add_replaces_and_remove_forgets() -> None:
    scheduler = Scheduler()
    scheduler.add("1", schedule(["a:"]), 50)
    scheduler.add("1", schedule(["b:"]), 10)
    scheduler.remove("none of ours")
    assert scheduler.starts(at(0), 9) == [Start("1", "b")]
    scheduler.remove("1")
    assert (scheduler.ends(at(0)), scheduler.next_due(), scheduler.best_ready(at(0))) == ([], None, None)


def test_ends_and_dues_of_all() -> None:
    scheduler = Scheduler()
    done = schedule(["a:"], checkpoint("a", SUCCEEDED, Outcome.SUCCEEDED))
    late, later = schedule(["a:"]), schedule(["a:"])
    for plan, seconds in ((late, 10.0), (later, 20.0)):
        started(plan)
        in_backoff(plan, "a", seconds)
    for workflow_id, plan in [("1", later), ("2", done), ("3", late)]:
        scheduler.add(workflow_id, plan, 50)
    assert scheduler.ends(at(0)) == [End("2", WorkflowEvent.SUCCEEDED, "")]
    assert scheduler.next_due() == 10
    assert scheduler.starts(at(15), 9) == [Start("3", "a")]
    assert scheduler.next_due() == 20


def test_nobody_waits_for_ever_behind_a_flood_of_higher_priority() -> None:
    """Each minute somebody submits with priority 60: that of priority 50 waits for those of ten minutes, no more."""
    waits = ulid(0, bytes(10))
    flood = [ulid(minute * 60_000, bytes(9) + b"1") for minute in range(1, 100)]
    ranked = sorted([(rank(50, waits), waits), *((rank(60, each), each) for each in flood)])
    assert [each for _, each in ranked].index(waits) in (9, 10)
    assert rank(100, flood[98]) < rank(0, waits), "and priority 100 goes ahead of all that is less than 100 minutes old"
