"""What has just come in is looked at alone, whoever says so; what nobody says the next scan finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioning.orchestrator.queue import Queue
from provisioning.storage import reading
from provisioning.storage.spool import Spool
from tests.simulation.values import MANIFEST, ONE, TWO, at, submission


def best(queue: Queue, seconds: float = 0) -> str | None:
    """The workflow that would be claimed next."""
    found = queue.best(at(seconds))
    return found.workflow_id if found else None


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool.create(tmp_path / "spool")
    made.submit(MANIFEST, "json", submission(ONE))
    yield made
    made.close()


def test_an_arrival_is_offered_without_a_look_at_the_others(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(spool, None)
    queue.scan(at(0))
    spool.submit(MANIFEST, "json", submission(TWO, priority=100))
    monkeypatch.setattr(reading, "list_names", None)
    assert best(queue) == ONE
    assert queue.hear([str(spool.incoming / TWO)])
    assert best(queue) == TWO


def test_what_else_has_arrived_is_for_a_scan(spool: Spool) -> None:
    queue = Queue(spool, None)
    assert not queue.hear([])
    assert not queue.hear([str(spool.requests / ".nudge")])
    assert not queue.hear([str(spool.incoming / ONE), str(spool.requests / ".nudge")])
    assert best(queue) == ONE


def test_an_arrival_that_is_none_is_left_to_the_scan(spool: Spool) -> None:
    (spool.incoming / TWO).mkdir()
    queue = Queue(spool, None)
    assert queue.hear([str(spool.incoming / name) for name in (TWO, ".hidden", "x", "..")])
    assert queue.best(at(0)) is None
    assert set(queue.scan(at(0))) == {TWO}


def test_who_works_one_workflow_hears_of_no_other(spool: Spool) -> None:
    queue = Queue(spool, TWO)
    queue.hear([str(spool.incoming / ONE)])
    assert queue.best(at(0)) is None


def test_an_arrival_that_is_heard_and_seen_is_one(spool: Spool) -> None:
    queue = Queue(spool, None)
    queue.hear([str(spool.incoming / ONE)])
    queue.scan(at(0))
    assert best(queue) == ONE
    queue.pop()
    assert queue.best(at(0)) is None


def test_nobody_waits_for_what_another_process_has_taken(spool: Spool) -> None:
    queue = Queue(spool, None)
    queue.scan(at(0))
    queue.pop()
    queue.postpone(ONE, 60)  # as its lock is held by whoever claims it
    assert queue.next_due() == 60
    spool.claim(ONE)
    queue.scan(at(5))
    assert queue.next_due() is None
