"""The metrics of a real orchestrator: what it does is in them, what other processes do, and what it found running."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provisioning.storage.audit import Audit
from tests.installation import Gate, Installation
from tests.metrics import samples
from tests.waiting import wait_for

pytestmark = pytest.mark.nu


def shown(site: Installation, name: str, **labels: str) -> float | None:
    path = site.spool.root / "metrics.prom"
    if not path.exists():
        return None
    return samples(path.read_text()).get((f"provisioning_{name}", tuple(sorted(labels.items()))))


def test_what_an_orchestrator_does_is_in_its_metrics(site: Installation, gate: Callable[[str], Gate]) -> None:
    site.settings(metrics_seconds=0.1, audit_syslog="/dev/null")
    one = gate("one")
    waiting = {"id": "a", "operation": "trial.again", "params": {"script": one.script}}
    workflow_id = site.submit([waiting, {"id": "b", "operation": "selftest.noop", "depends_on": ["a"]}])
    first = site.orchestrator()
    one.reached()
    wait_for(lambda: shown(site, "tasks", state="running") == 1, 20, "the running task")
    assert shown(site, "slots_used") == 1
    assert shown(site, "tasks", state="pending") == 1
    assert shown(site, "queue_wait_seconds_count") == 1
    first.kill()
    first.wait()
    site.orchestrator()
    wait_for(lambda: shown(site, "adoptions_total") == 1, 20, "the adoption")
    assert shown(site, "slots_used") == 1
    one.open()
    site.wait_ended(workflow_id)
    failing = {"id": "a", "operation": "selftest.fail", "params": {"code": "provisioning::x::y", "message": "no"}}
    site.submit([failing | {"retry": {"max_attempts": 2, "initial_delay": "0s"}}])
    wait_for(lambda: shown(site, "workflows", state="failed") == 1, 60, "the failed one")
    wait_for(lambda: shown(site, "workflow_duration_seconds_count") == 2, 20, "both ends")
    assert shown(site, "workflows", state="succeeded") == 1
    assert shown(site, "workflows_ended_total", state="failed") == 1
    assert shown(site, "attempts_total", outcome="failed") == 2
    assert shown(site, "retries_total") == 1
    assert shown(site, "attempt_duration_seconds_count", operation="selftest.fail") == 2
    assert shown(site, "slots_used") == 0
    head = Audit(site.spool.root).head()
    wait_for(lambda: shown(site, "audit_head_number", hash=head.hash) == head.n, 10, "the head")


def test_a_command_that_works_beside_it_is_counted(site: Installation) -> None:
    site.settings(metrics_seconds=0.1)
    site.orchestrator()
    wait_for(lambda: shown(site, "accepted_total", door="cli") == 0, 20, "the first metrics")
    assert site.start("selftest", "noop").wait(60) == 0
    wait_for(lambda: shown(site, "workflows_ended_total", state="succeeded") == 1, 20, "its end")
    assert shown(site, "accepted_total", door="cli") == 1
    assert shown(site, "workflows", state="succeeded") == 1
