"""A spool that was copied while it is worked, and not by `spool backup`: who works the copy touches nobody's processes.

The copy names the processes of the original, and they live: only locks, which no copy has, say whose they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioning.processes import is_alive
from provisioning.storage.spool import Spool
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

Gates = Callable[[str], Gate]


@pytest.fixture
def under_way(site: Installation, gate: Gates) -> tuple[str, Gate]:
    """A workflow whose first task waits at a gate, the original's orchestrator being at work."""
    one = gate("one")
    waits = {"id": "a", "operation": "trial.shell", "params": {"script": one.script}}
    workflow_id = site.submit([waits, site.mark("b", depends_on=["a"])])
    site.orchestrator()
    one.reached()
    wait_for((site.spool.tmp / site.worker_name(workflow_id, "a") / "group").exists)
    return workflow_id, one


def copied(site: Installation) -> Path:
    copy = site.root / "copy"
    shutil.copytree(site.spool.root, copy, symlinks=True)
    return copy


def ends_well(site: Installation, workflow_id: str, one: Gate) -> None:
    one.open()
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "a") == ["succeeded"]
    assert site.mark_lines() == ["b"]


def test_who_works_the_copy_ends_nothing_of_the_original(site: Installation, under_way: tuple[str, Gate]) -> None:
    workflow_id, one = under_way
    worker = site.worker(workflow_id, "a")
    copy = copied(site)
    there = {"PROVISIONING_SPOOL": str(copy)}
    assert site.start("orchestrator", "run", "--until-empty", environment=there).wait(30) == 1
    folder = Spool.open(copy).find(workflow_id)
    assert [str(each.outcome) for each in folder.task("a").attempts] == ["interrupted"], "a person must look there"
    assert is_alive(worker)
    ends_well(site, workflow_id, one)


def test_a_cancel_in_the_copy_cancels_nothing_in_the_original(site: Installation, under_way: tuple[str, Gate]) -> None:
    workflow_id, one = under_way
    there = {"PROVISIONING_SPOOL": str(copied(site))}
    assert site.start("workflow", "cancel", workflow_id, environment=there).wait(30) == 0, site.said()
    site.start("orchestrator", "run", "--until-empty", environment=there).wait(30)
    assert Spool.open(site.root / "copy").find(workflow_id).workflow().state == "cancelled"  # type: ignore[union-attr]
    ends_well(site, workflow_id, one)


def test_the_orchestrator_of_the_original_is_none_of_the_copy(site: Installation, under_way: tuple[str, Gate]) -> None:
    workflow_id, one = under_way
    there = {"PROVISIONING_SPOOL": str(copied(site))}
    assert site.start("orchestrator", "health", environment=there).wait(20) == 6
    assert site.start("orchestrator", "stop", environment=there).wait(20) == 6
    assert site.said().count(f"no orchestrator works {site.root / 'copy'}") == 2
    assert site.start("orchestrator", "start", environment=there).wait(20) == 0, site.said()
    assert site.start("orchestrator", "stop", environment=there).wait(30) == 0
    ends_well(site, workflow_id, one)
