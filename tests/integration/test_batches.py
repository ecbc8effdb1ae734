"""Batches as their users see them: instants, graphs, figures, what is left of them, and why something waits."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from provisioning.cli.inspection import instant_of
from provisioning.errors import UsageError
from provisioning.storage.check import check
from provisioning.views.stats import percentile
from tests.installation import Gate, Installation

Gates = Callable[[str], Gate]
NOW = datetime(2026, 12, 1, 1, 30, tzinfo=UTC)


def told(site: Installation, *arguments: str, ok: int = 0) -> str:
    """What a command prints."""
    process = site.start(*arguments)
    assert process.wait(60) == ok, site.said()
    return max(site.root.glob("said.*"), key=lambda path: int(path.suffix[1:])).read_text()


def echo(task_id: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"id": task_id, "operation": "selftest.echo", "params": {"value": value}, **more}


def test_instants_as_people_write_them() -> None:
    assert instant_of("2026-12-01T02:00:00Z", NOW) == datetime(2026, 12, 1, 2, tzinfo=UTC)
    assert instant_of("+1h30m", NOW) == NOW + timedelta(minutes=90)
    here = instant_of("02:00", NOW)
    assert timedelta(0) < here - NOW <= timedelta(days=1)
    assert (here.astimezone().hour, here.astimezone().minute) == (2, 0)
    for wrong in ("", "tomorrow", "25:00", "+", "+5", "2026-13-01"):
        with pytest.raises(UsageError):
            instant_of(wrong, NOW)


def test_percentiles_by_the_nearest_rank() -> None:
    assert percentile([], 0.5) is None
    assert percentile([3.0], 0.95) == 3.0
    assert percentile([float(n) for n in range(1, 101)], 0.5) == 50
    assert percentile([float(n) for n in range(1, 101)], 0.95) == 95
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2


@pytest.mark.nu
def test_a_batch_that_is_not_to_begin_yet(site: Installation) -> None:
    manifest = site.root / "m.json"
    manifest.write_text(json.dumps({"schema": 1, "name": "later", "tasks": [echo("a", 1)]}))
    workflow_id = told(site, "batch", "submit", str(manifest), "--at", "+1h").split()[0]
    site.drain()
    assert site.state(workflow_id) == "queued"
    assert site.folder(workflow_id).submission().not_before is not None
    told(site, "batch", "submit", str(manifest), "--at", "soon", ok=2)


@pytest.mark.nu
def test_what_is_left_of_a_workflow_continues_it(site: Installation) -> None:
    gate = site.root / "gate"
    tasks = [
        echo("a", {"ip": "10.0.0.1", "odd": "${x}".replace("$", "$$")}),
        echo("web", "${each.value}", for_each=["w1", "w2"]),
        {
            "id": "b",
            "operation": "trial.again",
            "params": {"script": f"test -e {gate}"},
            "depends_on": ["a"],
        },
        echo("c", ["${tasks.a.result.ip} of ${workflow.name}", "${tasks.a.result}"], depends_on=["a", "b"]),
        echo("d", "${tasks.web.*.result}", depends_on=["web", "c"]),
        echo("e", 1, depends_on=["a"], when={"task": "a", "path": "result.ip", "equals": "other"}),
        echo("f", 1, depends_on=["e"]),
        echo("g", 1, depends_on=["f"]),
    ]
    workflow_id = site.run(tasks)
    assert site.state(workflow_id) == "failed"
    manifest = site.root / "rest.json"
    manifest.write_text(told(site, "batch", "rescue", workflow_id))
    rest = json.loads(manifest.read_text())
    assert [task["id"] for task in rest["tasks"]] == ["b", "c", "d"]
    assert rest["tasks"][2]["params"] == {"value": ["w1", "w2"]}
    assert "done twice" not in site.said(), "it has ended"
    gate.write_text("")
    first = told(site, "batch", "submit", str(manifest)).split()[0]
    assert told(site, "batch", "submit", str(manifest)).split()[0] == first, "the same rest is one workflow"
    site.drain()
    assert site.state(first) == "succeeded", site.said()
    assert site.outcome(first, "c").result == ["10.0.0.1 of trial", {"ip": "10.0.0.1", "odd": "${x}"}]
    assert site.outcome(first, "d").result == ["w1", "w2"]
    told(site, "batch", "rescue", first, ok=5)
    assert check(site.spool.root) == []


@pytest.mark.nu
def test_what_cannot_go_on_by_itself_is_said(site: Installation) -> None:
    tasks = [echo("a", {"ip": 1}), echo("b", "${tasks.a.result.name}", depends_on=["a"])]
    workflow_id = site.run(tasks)
    assert site.state(workflow_id) == "failed"
    assert "there is no 'name' in it" in told(site, "batch", "rescue", workflow_id, ok=5)


@pytest.mark.nu
def test_graphs_and_figures(site: Installation) -> None:
    retry = {"max_attempts": 2, "initial_delay": "1ms"}
    tasks = [
        echo("web", 1, for_each=["x", "y"]),
        {
            "id": "bad",
            "operation": "selftest.fail",
            "after": ["web.1"],
            "retry": retry,
        },
        echo("all", 1, depends_on=["web"]),
    ]
    workflow_id = site.run(tasks, on_failure="continue")
    text = told(site, "workflow", "graph", workflow_id)
    assert [line.split()[0] for line in text.splitlines() if "selftest" in line][-1] == "all"
    assert "~web.1" in text
    dot = told(site, "workflow", "graph", workflow_id, "--dot")
    assert '"web" [shape=diamond];' in dot
    assert '"web.1" -> "bad" [style=dashed];' in dot
    assert "fillcolor=salmon" in dot
    found = json.loads(told(site, "workflow", "stats", "--json"))
    assert found["operations"]["selftest.fail"]["outcomes"] == {"failed": 2}
    assert found["operations"]["selftest.fail"]["failures"] == {"provisioning::selftest::failed": 2}
    assert found["operations"]["selftest.echo"]["attempts"] == 3
    assert found["workflows"]["trial"]["states"] == {"failed": 1}
    assert found["workflows"]["trial"]["queue_wait_seconds"]["p50"] >= 0
    assert found["operations"]["selftest.echo"]["seconds"]["p95"] > 0
    assert json.loads(told(site, "workflow", "stats", "--json", "--name", "other"))["workflows"] == {}
    assert "selftest.fail" in told(site, "workflow", "stats", "--since", "1h")


@pytest.mark.nu
def test_explain_says_what_a_task_waits_for_and_who_holds_it(site: Installation, gate: Gates) -> None:
    waits = gate("g")
    params = {"name": "x", "script": waits.script}
    workflow_id = site.submit(
        [
            {"id": "first", "operation": "trial.alone", "params": params},
            {"id": "second", "operation": "trial.alone", "params": {**params, "script": "true"}},
            echo("third", 1, depends_on=["second"]),
            echo("then", 1, depends_on=["first"]),
            echo("last", 1, depends_on=["then"]),  # so that the first has the longest way to the end
        ]
    )
    site.orchestrator()
    waits.reached()
    page = json.loads(told(site, "workflow", "explain", workflow_id, "--json"))
    tasks = {task["task_id"]: task for task in page["tasks"]}
    assert tasks["second"]["waiting_for"] == ["target:default/thing/x"]
    assert tasks["second"]["held_by"] == [f"{workflow_id}/first"]
    assert tasks["third"]["waiting_for"] == ["dependency:second"]
    assert f"held by {workflow_id}/first" in told(site, "workflow", "explain", workflow_id)
    assert "is running: what it does from now on would be done twice" in told(site, "batch", "rescue", workflow_id)
    waits.open()
    assert site.wait_ended(workflow_id) == "succeeded"
