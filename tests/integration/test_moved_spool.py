"""A spool that is renamed while something of it runs: the outcome lands in it, wherever it is by then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provisioning.processes import is_alive
from provisioning.storage.spool import Spool
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

Gates = Callable[[str], Gate]


def at_gate(site: Installation, gate: Gate) -> str:
    """A workflow whose task waits at the gate, must not run twice, and is followed by another."""
    first = {"id": "a", "operation": "trial.shell", "params": {"script": f"{gate.script}; echo a >> {site.marks}"}}
    return site.submit([first, site.mark("b", depends_on=["a"])])


def moved(site: Installation) -> Path:
    """Rename the spool; where it is now."""
    return site.spool.root.rename(site.root / "elsewhere")


@pytest.mark.parametrize("orchestrator_lives", [True, False])
def test_an_outcome_lands_while_the_spool_is_away(site: Installation, gate: Gates, orchestrator_lives: bool) -> None:
    one = gate("one")
    workflow_id = at_gate(site, one)
    process = site.orchestrator()
    one.reached()
    if not orchestrator_lives:
        process.kill()
    elsewhere = moved(site)
    one.open()
    outcome = Path("workflows", workflow_id, "outcomes", "a.1.json")
    wait_for((elsewhere / outcome).exists, what="the outcome")
    elsewhere.rename(site.spool.root)
    if not orchestrator_lives:
        site.orchestrator()
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "a") == ["succeeded"]
    assert site.mark_lines() == ["a", "b"]


def test_a_spool_that_stays_elsewhere_is_worked_on_there(site: Installation, gate: Gates) -> None:
    one = gate("one")
    workflow_id = at_gate(site, one)
    process = site.orchestrator()
    one.reached()
    worker = site.worker(workflow_id, "a")
    elsewhere = moved(site)
    process.kill()
    site.spool.close()
    site.spool = Spool.open(elsewhere)
    site.settings(spool=elsewhere)
    site.orchestrator()
    assert is_alive(worker)
    assert site.states(workflow_id) == {"a": "running"}
    one.open()
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "a") == ["succeeded"]
    assert site.mark_lines() == ["a", "b"]
