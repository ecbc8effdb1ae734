"""The wall clock is set back or forward: what people wrote follows it, durations and orders do not."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from provisioning.clock import new_ulid
from provisioning.core import attempts
from provisioning.core.identifiers import MAX_MILLISECONDS, ulid, ulid_milliseconds
from provisioning.core.scheduler import Now, Schedule
from provisioning.core.states import Outcome, TaskState
from provisioning.core.workflow import FORMAT, Request, Retry, Task
from provisioning.orchestrator.queue import Queue
from provisioning.storage.spool import Spool
from provisioning.views.text import spent
from tests.simulation.values import EPOCH, WORKFLOW_ID, at, checkpoint, graph, record, submission

HOUR = 3600.0


def set_by(now: Now, seconds: float) -> Now:
    """The same instant, the wall clock having been set by so much."""
    return Now(now.wall + timedelta(seconds=seconds), now.boottime, now.boot_id)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.create(tmp_path / "spool")


def queued(spool: Spool, now: Now, **asks: Any) -> Queue:
    """A queue that has seen one submission."""
    spool.submit(b"{}", "json", submission(**asks))
    queue = Queue(spool, None)
    look(queue, now)
    return queue


def look(queue: Queue, now: Now) -> bool:
    """What a scan of the orchestrator does; whether something may be claimed."""
    queue.heed_clock(now)
    assert queue.scan(now) == {}
    return queue.best(now) is not None


def test_not_before_comes_with_the_clock_that_is_set_forward(spool: Spool) -> None:
    queue = queued(spool, at(0), not_before=EPOCH + timedelta(seconds=HOUR))
    assert queue.next_due() == HOUR
    assert not look(queue, at(10))
    assert look(queue, set_by(at(15), HOUR))


def test_not_before_goes_away_with_the_clock_that_is_set_back(spool: Spool) -> None:
    queue = queued(spool, at(0), not_before=EPOCH + timedelta(seconds=HOUR))
    assert not look(queue, set_by(at(10), -HOUR))
    assert queue.next_due() == 2 * HOUR
    assert not look(queue, set_by(at(HOUR + 10), -HOUR))
    assert look(queue, set_by(at(2 * HOUR + 10), -HOUR))


@pytest.mark.parametrize(("seconds", "expires"), [(2 * HOUR, True), (-HOUR, False), (0.5, False)])
def test_expires_at_is_judged_by_the_clock_as_it_is_now(seconds: float, expires: bool) -> None:
    workflow = graph(["a:"], expires_at=EPOCH + timedelta(seconds=HOUR))
    now = set_by(at(10), seconds)
    schedule = Schedule(workflow, [], now)
    assert (schedule.can_start(now.boottime), schedule.end(now.boottime) is not None) == (not expires, expires)


def test_a_slow_correction_of_the_clock_is_heeded_once_it_has_added_up(spool: Spool) -> None:
    queue = Queue(spool, None)
    assert queue.heed_clock(at(0))
    assert [queue.heed_clock(set_by(at(t), t / 1000)) for t in (1, 900, 1100, 1200)] == [False, False, True, False]


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_backoff_of_this_boot_does_not_hear_the_clock(seconds: float) -> None:
    task = Task("a", "selftest.noop", retry=Retry(max_attempts=2, initial_delay_seconds=30))
    failed = record("a", Outcome.FAILED)
    after = attempts.ended(checkpoint("a", TaskState.RUNNING, None), task, failed, at(0), cancelling=False)
    schedule = Schedule(graph(["a:"]), [after], set_by(at(1), seconds))
    assert (schedule.can_start(29.9), schedule.can_start(30.0)) == (False, True)


def test_requests_are_applied_in_the_order_asked_when_the_clock_is_set_back_between(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.submit(b"{}", "json", submission())
    other = ulid(1_900_000_000_000, bytes(10))
    verbs = ["pause", "resume", "cancel"]
    for verb, seconds in zip(verbs, [1_800_000_000, 1_700_000_000, 1_600_000_000], strict=True):
        monkeypatch.setattr(time, "time_ns", lambda seconds=seconds: seconds * 10**9)
        spool.request(Request(FORMAT, new_ulid(), WORKFLOW_ID, verb, "alice", EPOCH))
    assert [request.verb for _, request in spool.requests_of(WORKFLOW_ID)] == verbs
    spool.request(Request(FORMAT, other, WORKFLOW_ID, "retry", "alice", EPOCH))
    assert spool.requests_of(WORKFLOW_ID)[-1][1].request_id == other, "one that is later anyway keeps its name"


def test_a_ulid_comes_behind_another_even_at_the_end_of_time() -> None:
    last = ulid(MAX_MILLISECONDS, bytes(10))
    assert ulid_milliseconds(last) == MAX_MILLISECONDS
    assert msgspec.convert(new_ulid(after=last), str) >= last
    assert new_ulid(after=ulid(9_000_000_000_000, b"\xff" * 10)) > ulid(9_000_000_000_000, b"\xff" * 10)


def test_what_ended_before_it_began_took_no_time() -> None:
    assert spent("2026-01-01T12:00:00Z", "2026-01-01T11:00:00Z", EPOCH) == "0.0s"
    assert spent("2026-01-01T12:00:00Z", None, EPOCH) == "0.0s"
