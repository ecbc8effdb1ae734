"""What is promised against starving, on a running orchestrator: by priority in the queue, by turn before a target."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from provisioning.core.identifiers import ulid
from provisioning.storage import submission
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

Gates = Callable[[str], Gate]
MINUTE = 60


def submit(site: Installation, line: str, priority: int, *, minutes_ago: float = 0) -> str:
    """A workflow of one task that leaves a mark, as if it had been submitted so long ago."""
    with pytest.MonkeyPatch.context() as patched:
        if minutes_ago:
            at = int((time.time() - minutes_ago * MINUTE) * 1000)
            patched.setattr(submission, "new_ulid", lambda: ulid(at, line.encode().ljust(10, b"-")))
        return site.submit([site.mark(line)], priority=priority)


def test_a_point_of_priority_is_worth_a_minute_whatever_comes_in(site: Installation, gate: Gates) -> None:
    """Priority 100 keeps coming in: who is more than 100 minutes older goes first, who is less waits for its end."""
    first = gate("first")
    site.submit([{"id": "a", "operation": "trial.again", "params": {"script": first.script}}], priority=100)
    process = site.orchestrator(slots=1)
    first.reached()
    flood = [submit(site, f"flood-{number}", 100) for number in range(4)]
    submit(site, "younger", 0, minutes_ago=99)
    submit(site, "older", 0, minutes_ago=101)
    submit(site, "middle", 50, minutes_ago=51)
    site.settle(process)
    first.open()
    for number in range(4, 10):  # there is always more of it than can run
        done = number - 3
        wait_for(lambda done=done: len(site.mark_lines()) >= done, 30, lambda done=done: f"{done} marks\n{site.said()}")  # type: ignore[misc]
        flood.append(submit(site, f"flood-{number}", 100))
    last = submit(site, "behind", 0)
    assert site.wait_ended(last, 60) == "succeeded"
    lines = site.mark_lines()
    assert lines[:2] == ["older", "middle"]
    assert lines[2:-2] == [f"flood-{number}" for number in range(10)], "among equals the first come is the first served"
    assert lines[-2:] == ["younger", "behind"], "and when the flood is over, all the others are done"


def test_before_a_target_everybody_has_a_turn(site: Installation, gate: Gates) -> None:
    """Who has come first is served first: priority decides who comes to the target, and nobody overtakes there."""
    first = gate("first")

    def alone(line: str, priority: int, script: str = "") -> str:
        params: dict[str, Any] = {"name": "x", "script": script or f"echo {line} >> {site.marks}"}
        return site.submit([{"id": "a", "operation": "trial.alone", "params": params}], priority=priority)

    def waits(workflow_id: str) -> bool:
        return workflow_id in site.spool.claimed_ids()

    alone("first", 0, first.script)
    site.orchestrator(slots=4)
    first.reached()
    before = [alone(f"before-{number}", 100) for number in range(4)]
    wait_for(lambda: all(map(waits, before)), 30, "those before it")
    victim = alone("victim", 0)
    wait_for(lambda: waits(victim), 30, "the one of low priority")
    after = [alone(f"after-{number}", 100) for number in range(12)]
    wait_for(lambda: all(map(waits, after)), 30, "those behind it")
    first.open()
    for workflow_id in (*before, victim, *after):
        assert site.wait_ended(workflow_id, 60) == "succeeded"
    assert [line.partition("-")[0] for line in site.mark_lines()] == ["before"] * 4 + ["victim"] + ["after"] * 12
