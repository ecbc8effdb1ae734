"""What an orchestrator starts, when and how often: order, retries, limits, priorities, requests, bad files."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from provisioning.errors import Refused
from provisioning.storage.checkpoint import Damaged
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

Gates = Callable[[str], Gate]

FAIL = {"operation": "selftest.fail"}
NOOP = {"operation": "selftest.noop"}


def at_gate(task_id: str, gate: Gate, **more: Any) -> dict[str, Any]:
    """A task that waits at a gate."""
    return {"id": task_id, "operation": "trial.again", "params": {"script": gate.script}, **more}


def seconds(site: Installation, workflow_id: str, task_id: str) -> list[float]:
    """How long after the end of the attempt before it each further attempt started."""
    attempts = site.task(workflow_id, task_id).attempts
    pairs = pairwise(attempts)
    return [(after.started_at - before.ended_at).total_seconds() for before, after in pairs if before.ended_at]


def test_tasks_start_when_what_they_depend_on_has_succeeded(site: Installation) -> None:
    tasks = [
        site.mark("d", depends_on=["b", "c"]),
        site.mark("c", depends_on=["a"]),
        site.mark("b", depends_on=["a"]),
        site.mark("a"),
        site.mark("e", after=["d"]),
    ]
    workflow_id = site.run(tasks)
    assert site.state(workflow_id) == "succeeded"
    lines = site.mark_lines()
    assert (lines[0], {*lines[1:3]}, lines[3:]) == ("a", {"b", "c"}, ["d", "e"])


def test_retries_with_exponential_backoff(site: Installation) -> None:
    retry = {"max_attempts": 3, "initial_delay": "200ms"}
    workflow_id = site.run([{"id": "t", **FAIL, "retry": retry}])
    assert site.state(workflow_id) == "failed"
    assert site.outcomes(workflow_id, "t") == ["failed", "failed", "failed"]
    first, second = seconds(site, workflow_id, "t")
    assert first >= 0.19
    assert second >= 0.39


def test_retries_only_on_what_the_policy_names(site: Installation) -> None:
    retry = {"max_attempts": 2, "initial_delay": "10ms", "on": ["exit:75", "provisioning::upcloud::*", "timeout"]}
    tasks: list[dict[str, Any]] = [
        {"id": "exit75", **FAIL, "params": {"exit": 75}},
        {"id": "exit76", **FAIL, "params": {"exit": 76}},
        {"id": "upcloud", **FAIL, "params": {"code": "provisioning::upcloud::busy"}},
        {"id": "other", **FAIL},
        {"id": "late", "operation": "selftest.sleep", "params": {"seconds": 60}, "timeout": "100ms"},
    ]
    workflow_id = site.run([{**task, "retry": retry} for task in tasks], on_failure="continue")
    made = {task["id"]: len(site.task(workflow_id, task["id"]).attempts) for task in tasks}
    assert made == {"exit75": 2, "exit76": 1, "upcloud": 2, "other": 1, "late": 2}


def test_a_retry_that_succeeds(site: Installation) -> None:
    script = f"test -e {site.root}/there || {{ touch {site.root}/there; exit 1; }}"
    retry = {"max_attempts": 2, "initial_delay": "10ms"}
    tasks = [{"id": "t", "operation": "trial.again", "params": {"script": script}, "retry": retry}]
    workflow_id = site.run([*tasks, site.mark("next", depends_on=["t"])])
    assert site.outcomes(workflow_id, "t") == ["failed", "succeeded"]
    assert site.mark_lines() == ["next"]


@pytest.mark.parametrize(("policy", "marked"), [("stop", []), ("continue", ["independent"])])
def test_on_failure(site: Installation, policy: str, marked: list[str]) -> None:
    tasks = [
        {"id": "bad", **FAIL},
        site.mark("dependent", depends_on=["bad"]),
        site.mark("independent", after=["bad"]),
    ]
    workflow_id = site.run(tasks, on_failure=policy)
    assert site.state(workflow_id) == "failed"
    assert site.mark_lines() == marked


def test_what_runs_is_finished_when_another_fails(site: Installation, gate: Gates) -> None:
    one = gate("one")
    workflow_id = site.submit([at_gate("runs", one), {"id": "bad", **FAIL}, site.mark("never", depends_on=["runs"])])
    site.orchestrator()
    one.reached()
    wait_for(lambda: site.states(workflow_id).get("bad") == "failed")
    assert site.state(workflow_id) == "running"
    one.open()
    assert site.wait_ended(workflow_id) == "failed"
    assert site.states(workflow_id)["runs"] == "succeeded"
    assert site.mark_lines() == []


def test_max_parallel(site: Installation, gate: Gates) -> None:
    gates = [gate(f"g{number}") for number in range(3)]
    workflow_id = site.submit([at_gate(f"t{n}", one) for n, one in enumerate(gates)], max_parallel=1)
    site.orchestrator()
    for number, one in enumerate(gates):
        one.reached()
        assert list(site.states(workflow_id).values()).count("running") == 1, number
        one.open()
    assert site.wait_ended(workflow_id) == "succeeded"


def test_the_more_urgent_workflow_goes_first(site: Installation, gate: Gates) -> None:
    """One slot: of what waits when it becomes free, the higher priority starts, and then the older."""
    one = gate("one")
    first = site.submit([at_gate("gate", one), site.mark("low", depends_on=["gate"])], priority=10)
    process = site.orchestrator(slots=1)
    one.reached()
    others = [
        site.submit([site.mark("normal")]),
        site.submit([site.mark("later")]),
        site.submit([site.mark("high")], priority=90),
    ]
    site.settle(process)
    one.open()
    for workflow_id in [first, *others]:
        assert site.wait_ended(workflow_id) == "succeeded"
    assert site.mark_lines() == ["high", "normal", "later", "low"]


def test_pause_and_resume(site: Installation, gate: Gates) -> None:
    one = gate("one")
    workflow_id = site.submit([at_gate("a", one), site.mark("b", depends_on=["a"])])
    site.orchestrator()
    one.reached()
    site.ask("pause", workflow_id)
    site.wait_state(workflow_id, "paused")
    one.open()  # what runs is finished
    wait_for(lambda: site.states(workflow_id)["a"] == "succeeded")
    other = site.submit([{"id": "t", **NOOP}])
    assert site.wait_ended(other) == "succeeded"
    assert site.mark_lines() == []
    site.ask("resume", workflow_id)
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.mark_lines() == ["b"]


def test_retry_keeps_what_succeeded(site: Installation) -> None:
    there = site.root / "there"
    tasks = [
        site.mark("before"),
        {"id": "bad", "operation": "trial.again", "params": {"script": f"test -e {there}"}, "depends_on": ["before"]},
        site.mark("behind", depends_on=["bad"]),
    ]
    workflow_id = site.run(tasks)
    assert site.state(workflow_id) == "failed"
    there.touch()
    site.ask("retry", workflow_id)
    assert site.drain() == 0
    assert site.state(workflow_id) == "succeeded"
    assert site.mark_lines() == ["before", "behind"]
    assert site.outcomes(workflow_id, "bad") == ["failed", "succeeded"]
    assert [applied.verb for applied in site.workflow(workflow_id).applied] == ["retry"]


def test_retry_of_one_task_that_succeeded_with_what_depends_on_it(site: Installation) -> None:
    tasks = [site.mark("a"), site.mark("b", depends_on=["a"]), site.mark("c", after=["b"]), site.mark("apart")]
    workflow_id = site.run(tasks, max_parallel=1)
    with pytest.raises(Refused):
        site.ask("retry", workflow_id)
    before = site.mark_lines()
    site.ask("retry", workflow_id, "b")
    assert site.drain() == 0
    assert site.mark_lines() == [*before, "b", "c"]
    assert site.outcomes(workflow_id, "b") == ["succeeded", "succeeded"]
    assert site.outcomes(workflow_id, "apart") == ["succeeded"]


def test_a_retry_counts_its_attempts_anew(site: Installation) -> None:
    retry = {"max_attempts": 2, "initial_delay": "10ms"}
    workflow_id = site.run([{"id": "t", **FAIL, "retry": retry}])
    site.ask("retry", workflow_id)
    site.drain(max_wait=5)
    assert site.outcomes(workflow_id, "t") == ["failed"] * 4


def test_not_before_is_waited_for(site: Installation) -> None:
    at = datetime.now(UTC) + timedelta(seconds=1.5)
    workflow_id = site.submit([{"id": "t", **NOOP}], not_before=at.isoformat())
    assert site.drain() == 0
    assert site.state(workflow_id) == "queued", "until-empty waits for nothing by itself"
    site.drain(max_wait=20)
    assert site.state(workflow_id) == "succeeded"
    assert site.outcome(workflow_id, "t").started_at >= at


def test_what_has_expired_is_cancelled_with_that_reason(site: Installation) -> None:
    at = datetime.now(UTC) + timedelta(seconds=0.2)
    workflow_id = site.submit([site.mark("t")], expires_at=at.isoformat())
    wait_for(lambda: datetime.now(UTC) > at)
    assert site.drain() == 1
    assert (site.state(workflow_id), site.workflow(workflow_id).reason) == ("cancelled", "expired")
    assert site.mark_lines() == []


def test_a_manifest_that_has_become_invalid_is_rejected(site: Installation) -> None:
    """Between submit and claim its operation went away; only that workflow is refused."""
    nulib = site.root / "nulib" / "gone"
    nulib.mkdir(parents=True)
    text = "use ../lib/operation.nu *\n# Here today.\n@operation {}\nexport def go []: nothing -> nothing { }\n"
    (nulib / "now.nu").write_text("# gone.now\n\n" + text)
    site.settings(nulib=f"{site.root}/nulib:{site.environment['PROVISIONING_NULIB']}")
    invalid = site.submit([{"id": "t", "operation": "gone.now"}])
    valid = site.submit([{"id": "t", **NOOP}])
    (nulib / "now.nu").unlink()
    assert site.drain() == 1
    assert site.state(valid) == "succeeded"
    assert site.spool.folder_path(invalid) is None
    (folder,) = site.spool.rejected.iterdir()
    reason = json.loads((folder / "reason.json").read_text())
    assert folder.name.endswith(invalid)
    assert [problem["code"] for problem in reason["problems"]] == ["unknown-operation"]


def test_a_plan_does_not_change_with_the_operations(site: Installation, gate: Gates) -> None:
    """What was claimed runs the operations of then, even when they are gone."""
    one, nulib = gate("one"), site.root / "nulib" / "gone"
    nulib.mkdir(parents=True)
    text = "use ../lib/operation.nu *\n# Here today.\n@operation {}\nexport def go []: nothing -> nothing { }\n"
    (nulib / "now.nu").write_text("# gone.now\n\n" + text)
    site.settings(nulib=f"{site.root}/nulib:{site.environment['PROVISIONING_NULIB']}")
    workflow_id = site.submit([at_gate("a", one), {"id": "b", "operation": "gone.now", "depends_on": ["a"]}])
    site.orchestrator()
    one.reached()
    (nulib / "now.nu").unlink()
    one.open()
    assert site.wait_ended(workflow_id) == "succeeded"


def _damage_task(site: Installation, workflow_id: str) -> None:
    (site.spool.workflows / workflow_id / "tasks" / "a.json").write_text("{")


def _add_task(site: Installation, workflow_id: str) -> None:
    found = site.task(workflow_id, "a")
    (site.spool.workflows / workflow_id / "tasks" / "zz.json").write_text(
        json.dumps({"format": found.format, "task_id": "zz", "state": "running"})
    )


def _damage_outcome(site: Installation, workflow_id: str) -> None:
    (site.spool.workflows / workflow_id / "outcomes" / "a.1.json").write_text("[]")


def _damage_plan(site: Installation, workflow_id: str) -> None:
    (site.spool.workflows / workflow_id / "plan.json").write_text("")


def _damage_workflow(site: Installation, workflow_id: str) -> None:
    (site.spool.workflows / workflow_id / "workflow.json").write_text("\0")


def _lose_submission(site: Installation, workflow_id: str) -> None:
    for name in ("workflow.json", "submission.json"):
        (site.spool.workflows / workflow_id / name).unlink()


@pytest.mark.parametrize(
    "damage", [_damage_task, _add_task, _damage_outcome, _damage_plan, _damage_workflow, _lose_submission]
)
@pytest.mark.parametrize("asked", ["nothing", "cancel"])
def test_a_damaged_file_stops_only_its_workflow(
    site: Installation, gate: Gates, damage: Callable[[Installation, str], None], asked: str
) -> None:
    """Found by the orchestrator that takes over from one that was killed; what is damaged is not overwritten."""
    one = gate("one")
    damaged = site.submit([at_gate("a", one), site.mark("b", depends_on=["a"])])
    process = site.orchestrator()
    one.reached()
    process.kill()
    process.wait()
    damage(site, damaged)
    files = (site.spool.workflows / damaged).rglob("*.json")
    held = {path: path.read_bytes() for path in files if path.name != "workflow.json" or damage is _damage_workflow}
    if asked == "cancel":
        name = f"{damaged}.01arz3ndektsv4rrffq69g5fav.json"
        request = {"format": 1, "request_id": name[27:53], "workflow_id": damaged, "verb": "cancel", "operator": "x"}
        (site.spool.requests / name).write_text(json.dumps({**request, "at": "2026-01-01T00:00:00Z"}))
    process = site.orchestrator()
    sound = site.submit([site.mark("sound")])
    assert site.wait_ended(sound) == "succeeded"
    one.open()
    sound = site.submit([site.mark("sound2")])
    assert site.wait_ended(sound) == "succeeded"
    assert process.poll() is None
    assert "damaged" in site.said()
    assert {path: path.read_bytes() for path in held} == held
    assert site.mark_lines() == ["sound", "sound2"]


def test_a_checkpoint_that_is_mended_goes_on(site: Installation, gate: Gates) -> None:
    one = gate("one")
    workflow_id = site.submit([at_gate("a", one), site.mark("b", depends_on=["a"])])
    process = site.orchestrator()
    one.reached()
    process.kill()
    process.wait()
    path = site.spool.workflows / workflow_id / "tasks" / "a.json"
    whole = path.read_bytes()
    path.write_bytes(b"")
    assert site.drain() in (0, 1)
    path.write_bytes(whole)
    one.open()
    site.drain(max_wait=5)
    assert site.state(workflow_id) == "succeeded"
    assert site.mark_lines() == ["b"]


def test_events_tell_the_story_in_order(site: Installation) -> None:
    workflow_id = site.run([site.mark("a"), site.mark("b", depends_on=["a"])])
    told = [(event.get("task_id"), event["state"]) for event in site.folder(workflow_id).events() if "state" in event]
    assert told == [
        ("a", "running"),
        ("a", "succeeded"),
        ("b", "running"),
        ("b", "succeeded"),
        (None, "succeeded"),
    ]


def test_a_task_s_checkpoint_of_a_later_format_is_left_alone(site: Installation) -> None:
    workflow_id = site.run([{"id": "t", **FAIL}])
    path = site.spool.workflows / workflow_id / "tasks" / "t.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "format": 99}))
    later = path.read_bytes()
    with pytest.raises(Damaged, match="format is 99"):
        site.ask("retry", workflow_id)
    assert path.read_bytes() == later
