"""What follows from an interruption: another attempt, the probe's answer, or a person's, who is told what to type."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from provisioning.processes import send_signal
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

Gates = Callable[[str], Gate]


def interrupt(site: Installation, gate: Gate, operation: str, **more: Any) -> str:
    """A workflow whose task a was interrupted at the gate, and whose task b waits for it."""
    params = {"script": gate.script, **more.pop("params", {})}
    first = {"id": "a", "operation": operation, "params": params, **more}
    workflow_id = site.submit([first, site.mark("b", depends_on=["a"])])
    site.orchestrator()
    gate.reached()
    send_signal(site.worker(workflow_id, "a"), signal.SIGKILL)
    wait_for(lambda: site.outcomes(workflow_id, "a")[0] == "interrupted", what=site.said)
    return workflow_id


def command(site: Installation, *words: str) -> tuple[int, str]:
    """Run a command; its exit code, and what it printed."""
    process = site.start(*words)
    number = len(site._started) - 1
    return process.wait(20), (site.root / f"said.{number}").read_text()


def test_rerun_makes_another_attempt_although_the_operation_is_not_idempotent(site: Installation, gate: Gates) -> None:
    one = gate("one")
    workflow_id = interrupt(site, one, "trial.shell", on_interrupt="rerun")
    one.open(2)
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "a") == ["interrupted", "succeeded"]


def test_a_probe_that_finds_the_work_done_ends_the_task_with_its_answer(site: Installation, gate: Gates) -> None:
    workflow_id = interrupt(site, gate("one"), "trial.probed", on_interrupt="probe")
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "a") == ["interrupted", "succeeded"]
    assert site.outcome(workflow_id, "a", 2).result == {"found": "by the probe"}
    assert site.mark_lines() == ["b"]


def test_a_probe_that_finds_nothing_has_the_work_done_again(site: Installation, gate: Gates) -> None:
    one = gate("one")
    workflow_id = interrupt(site, one, "trial.probed", on_interrupt="probe", params={"found": "nothing"})
    one.open(3)
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "a") == ["interrupted", "failed", "succeeded"]
    assert site.outcome(workflow_id, "a", 3).result == {"found": "by itself"}


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("trial.shell", {"on_interrupt": "fail"}),
        ("trial.shell", {}),
        ("trial.again", {"on_interrupt": "fail"}),
        ("trial.probed", {"on_interrupt": "probe", "params": {"found": "unclear"}}),
    ],
)
def test_where_nobody_can_know_a_person_is_asked_and_told_what_to_type(
    site: Installation, gate: Gates, operation: str, more: dict[str, Any]
) -> None:
    one = gate("one")
    workflow_id = interrupt(site, one, operation, **more)
    site.wait_state(workflow_id, "paused")
    advice = f"provisioning workflow retry {workflow_id} --task a"
    for verb, says in (("status", f"provisioning workflow explain {workflow_id}"), ("explain", advice)):
        code, text = command(site, "workflow", verb, workflow_id)
        assert code == 0
        assert "waits for a person" in text
        assert says in text
    for verb in ("resume", "retry"):
        code, text = command(site, "workflow", verb, workflow_id)
        assert code == 5
        assert "a person must say" in text
        assert advice in text
    assert site.state(workflow_id) == "paused"
    assert site.mark_lines() == []
    attempt = len(site.outcomes(workflow_id, "a")) + 1
    assert command(site, *advice.split()[1:])[0] == 0
    one.open(attempt)
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.mark_lines() == ["b"]


def test_a_cancel_of_what_still_runs_says_that_it_is_under_way(site: Installation, gate: Gates) -> None:
    site.settings(limits_grace_seconds=60)
    one = gate("one")
    script = f"trap '' TERM; {one.script}"
    workflow_id = site.submit([{"id": "a", "operation": "trial.shell", "params": {"script": script}}])
    site.orchestrator()
    one.reached()
    assert command(site, "workflow", "cancel", workflow_id) == (0, f"workflow {workflow_id}: cancelling\n")


def test_a_person_may_give_up_instead(site: Installation, gate: Gates) -> None:
    workflow_id = interrupt(site, gate("one"), "trial.shell")
    site.wait_state(workflow_id, "paused")
    assert command(site, "workflow", "cancel", workflow_id)[0] == 0
    assert site.wait_ended(workflow_id) == "cancelled"
    assert site.mark_lines() == []
