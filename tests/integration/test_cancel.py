"""Cancelling: what runs is ended, what waits never starts, whoever runs it."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from provisioning.clock import new_ulid, now
from provisioning.core.workflow import FORMAT, Request
from provisioning.errors import Refused
from provisioning.execution.ending import holders
from provisioning.processes import send_signal
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

Gates = Callable[[str], Gate]


def test_cancel_ends_what_runs_and_starts_nothing_more(site: Installation, gate: Gates) -> None:
    one = gate("one")
    tasks = [
        {"id": "a", "operation": "trial.shell", "params": {"script": f"trap '' TERM; {one.script}"}},
        site.mark("b", after=["a"]),
    ]
    workflow_id = site.submit(tasks)
    site.orchestrator()
    one.reached()
    site.ask("cancel", workflow_id)
    assert site.wait_ended(workflow_id) == "cancelled"
    assert site.outcomes(workflow_id, "a") == ["cancelled"]
    assert site.workflow(workflow_id).reason == "cancelled by tester"
    assert holders(site.folder(workflow_id).log_path("a", 1)) == []
    assert site.mark_lines() == []


def test_cancel_of_what_nobody_works_needs_no_orchestrator(site: Installation) -> None:
    workflow_id = site.submit([site.mark("a")])
    site.ask("cancel", workflow_id)
    assert site.state(workflow_id) == "cancelled"
    assert site.drain() == 0
    assert site.mark_lines() == []
    with pytest.raises(Refused):
        site.ask("cancel", workflow_id)


def test_cancel_of_what_waits_behind_another(site: Installation, gate: Gates) -> None:
    one = gate("one")
    first = site.submit([{"id": "a", "operation": "trial.again", "params": {"script": one.script}}])
    site.orchestrator(slots=1)
    one.reached()
    workflow_id = site.submit([site.mark("b")])
    site.ask("cancel", workflow_id)
    assert site.wait_ended(workflow_id) == "cancelled"
    one.open()
    assert site.wait_ended(first) == "succeeded"
    assert site.mark_lines() == []


def test_cancel_of_an_adopted_task(site: Installation, gate: Gates) -> None:
    one = gate("one")
    workflow_id = site.submit([{"id": "a", "operation": "trial.shell", "params": {"script": one.script}}])
    process = site.orchestrator()
    one.reached()
    process.kill()
    process.wait()
    site.orchestrator()
    site.ask("cancel", workflow_id)
    assert site.wait_ended(workflow_id) == "cancelled"
    assert site.outcomes(workflow_id, "a") == ["cancelled"]
    assert holders(site.folder(workflow_id).log_path("a", 1)) == []


def test_a_cancel_goes_on_when_the_orchestrator_is_killed_over_it(site: Installation, gate: Gates) -> None:
    """It was asked for while nobody worked the spool and the task was running."""
    one = gate("one")
    workflow_id = site.submit([{"id": "a", "operation": "trial.shell", "params": {"script": one.script}}])
    process = site.orchestrator()
    one.reached()
    process.kill()
    process.wait()
    site.ask("cancel", workflow_id)
    assert site.state(workflow_id) == "running"
    site.orchestrator()
    assert site.wait_ended(workflow_id) == "cancelled"
    assert site.outcomes(workflow_id, "a") == ["cancelled"]


def test_a_cancelled_workflow_can_be_retried(site: Installation, gate: Gates) -> None:
    one = gate("one")
    waits = {"id": "a", "operation": "trial.shell", "params": {"script": one.script}}
    workflow_id = site.submit([waits, site.mark("b", depends_on=["a"])])
    site.orchestrator()
    one.reached()
    site.ask("cancel", workflow_id)
    assert site.wait_ended(workflow_id) == "cancelled"
    site.ask("retry", workflow_id)
    one.open(2)
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.mark_lines() == ["b"]


def test_a_term_from_a_stranger_is_no_cancel(site: Installation, gate: Gates) -> None:
    """The task counts as interrupted then, and is made again where it may be."""
    one = gate("one")
    workflow_id = site.submit([{"id": "a", "operation": "trial.again", "params": {"script": one.script}}])
    site.orchestrator()
    one.reached()
    worker = site.worker(workflow_id, "a")
    assert send_signal(worker, signal.SIGTERM)
    one.open(2)
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "a") == ["interrupted", "succeeded"]


def test_cancel_while_a_retry_is_waited_for(site: Installation) -> None:
    retry = {"max_attempts": 5, "initial_delay": "1h", "max_delay": "1h"}
    workflow_id = site.submit([{"id": "a", "operation": "selftest.fail", "retry": retry}])
    site.orchestrator()
    wait_for(lambda: site.outcomes(workflow_id, "a") == ["failed"])
    site.ask("cancel", workflow_id)
    assert site.wait_ended(workflow_id) == "cancelled"
    assert site.outcomes(workflow_id, "a") == ["failed"]


def test_a_cancel_that_comes_after_the_end_changes_nothing(site: Installation) -> None:
    """Asked for while the workflow ran, found when it had ended."""
    workflow_id = site.run([site.mark("a")])
    process = site.orchestrator()
    site.spool.request(Request(FORMAT, new_ulid(), workflow_id, "cancel", "tester", now()))
    wait_for(lambda: not site.spool.requests_of(workflow_id))
    other = site.submit([site.mark("b")])
    assert site.wait_ended(other) == "succeeded"
    assert site.state(workflow_id) == "succeeded"
    assert process.poll() is None


def test_a_request_about_no_workflow_is_dropped(site: Installation) -> None:
    workflow_id = new_ulid()
    site.orchestrator()
    site.spool.request(Request(FORMAT, new_ulid(), workflow_id, "cancel", "tester", now()))
    wait_for(lambda: not site.spool.requests_of(workflow_id))
