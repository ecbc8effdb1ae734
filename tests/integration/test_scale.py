"""Small runs of what the benchmark of scale does with large numbers: its figures are of something that works."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from provisioning.core.states import WorkflowState
from provisioning.storage.active import active_ids
from tests.benchmark.place import AtOnce, Site, flat, manifest, site, tangled
from tests.waiting import wait_for


@pytest.fixture
def place() -> Iterator[Site]:
    with site() as made:
        yield made


def ended(place: Site, workflow_id: str) -> bool:
    checkpoint = place.spool.workflow(workflow_id).workflow()
    return checkpoint is not None and checkpoint.state is WorkflowState.SUCCEEDED


def test_an_executor_that_ends_at_once_works_a_tangle_to_its_end(place: Site) -> None:
    workflow_id = place.submit(manifest(60, tangled))
    executor = AtOnce(keep=True)
    place.work(executor)
    assert ended(place, workflow_id)
    assert len(executor.started) == 60
    assert active_ids(place.spool.root) == []


def test_what_tasks_took_is_in_the_plan_of_the_next_workflow_of_the_name(place: Site) -> None:
    first = place.submit(manifest(3, flat))
    place.work()
    again = place.submit(manifest(3, flat) | {"defaults": {"expected": "7s"}})
    other = place.submit(manifest(3, flat, name="other"))
    place.work()
    once_more = place.submit(manifest(3, flat))
    place.work()

    def expected(workflow_id: str) -> set[float | None]:
        plan = place.spool.workflow(workflow_id).plan()
        assert plan is not None
        return {task.expected_seconds for task in plan.workflow.tasks}

    assert expected(first) == expected(other) == {None}
    assert expected(again) == {7.0}
    assert expected(once_more) == {0.0}, "its attempts take no time"


def test_an_urgent_one_is_among_the_next_ten(place: Site) -> None:
    for _ in range(30):
        place.submit(manifest(1, flat))
    executor = AtOnce(keep=True)
    orchestrator = place.orchestrator(executor)
    orchestrator.tick()
    assert executor.started
    urgent = place.submit(manifest(1, flat, priority=100))
    orchestrator.scan_soon([str(place.spool.incoming / urgent)])
    before = len(executor.started)

    def begun() -> bool:
        orchestrator.tick()
        return any(key.workflow_id == urgent for key, _ in executor.started)

    wait_for(begun)
    orchestrator.close()
    assert [key.workflow_id for key, _ in executor.started].index(urgent) < before + 10


def test_half_a_workflow_is_gone_on_with(place: Site) -> None:
    workflow_id = place.submit(manifest(40, flat))
    executor = AtOnce(keep=True)
    orchestrator = place.orchestrator(executor)
    orchestrator.tick()
    orchestrator.draining = True
    orchestrator.tick()
    orchestrator.close()
    assert 0 < len(executor.started) < 40
    assert active_ids(place.spool.root) == [workflow_id]
    rest = AtOnce(keep=True)
    place.work(rest)
    assert ended(place, workflow_id)
    keys = [key for key, _ in (*executor.started, *rest.started)]
    assert len(set(keys)) == len(keys) == 40
