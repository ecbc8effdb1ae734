"""Workers are heeded between two ticks, until something was asked or the spool is away."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from provisioning.clock import boottime, new_ulid, now
from provisioning.core.states import WorkflowState
from provisioning.core.workflow import FORMAT, Request
from provisioning.orchestrator.loop import Orchestrator
from tests.benchmark.place import SLOTS, AtOnce, Site, flat, manifest, site


@pytest.fixture
def place() -> Iterator[Site]:
    with site() as made:
        yield made


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> AtOnce:
    """One that wants no tick by itself."""
    made = AtOnce(keep=True)
    monkeypatch.setattr(made, "trim", lambda _now: None)
    return made


@pytest.fixture
def orchestrator(place: Site, executor: AtOnce) -> Iterator[Orchestrator]:
    """One that has started as many tasks as it has slots for, and whose executor has news of them."""
    place.submit(manifest(SLOTS * 3, flat))
    made = place.orchestrator(executor)
    made.tick()
    assert len(executor.started) == SLOTS
    os.eventfd_write(executor.descriptor, 1)
    yield made
    made.close()


def slept(orchestrator: Orchestrator) -> float:
    """Seconds until it wants another tick."""
    begun = boottime()
    assert orchestrator.wait([]) == []
    return boottime() - begun


def test_more_is_started_without_another_tick(orchestrator: Orchestrator, executor: AtOnce) -> None:
    assert slept(orchestrator) < 1
    assert len(executor.started) > SLOTS, "all of them on an idle host"


def test_what_was_asked_is_applied_before_anything_else_starts(
    place: Site, orchestrator: Orchestrator, executor: AtOnce
) -> None:
    workflow_id = executor.started[0][0].workflow_id
    place.spool.request(Request(FORMAT, new_ulid(), workflow_id, "pause", "bench", now()))
    assert slept(orchestrator) < 1
    assert len(executor.started) == SLOTS
    orchestrator.tick()
    assert len(executor.started) == SLOTS
    checkpoint = place.spool.workflow(workflow_id).workflow()
    assert checkpoint is not None
    assert checkpoint.state is WorkflowState.PAUSED


def test_nothing_starts_where_the_spool_is_away(place: Site, orchestrator: Orchestrator, executor: AtOnce) -> None:
    moved = place.folder / "moved"
    place.spool.root.rename(moved)
    try:
        assert slept(orchestrator) < 1
        assert len(executor.started) == SLOTS
    finally:
        moved.rename(place.spool.root)
