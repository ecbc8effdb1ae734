"""Targets and groups: who may run beside whom, in one workflow, in several, and in several processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provisioning.storage.check import check
from provisioning.storage.limits import Look, Wanted, taken
from provisioning.views.status import workflow_status
from tests.installation import Gate, Installation
from tests.waiting import wait_for

Gates = Callable[[str], Gate]


def test_one_holds_a_target_alone_or_several_share_it(tmp_path: Path) -> None:
    alone, shared = Wanted("target:demo/server/a"), Wanted("target:demo/server/a", exclusive=False)
    other = Wanted("target:demo/server/b")
    look = Look(tmp_path)
    with taken(tmp_path, [shared, other]) as (first, missing):
        assert first is not None
        assert missing == ""
        with taken(tmp_path, [shared]) as (second, _):
            assert second is not None
        with taken(tmp_path, [alone]) as answer:
            assert answer == (None, alone.name)
        assert look.in_the_way([shared]) == ""
        assert look.in_the_way([alone]) == alone.name
    with taken(tmp_path, [alone]) as (first, missing):
        assert first is not None
        assert look.in_the_way([shared]) == shared.name
        copy = os.dup(first)
    assert look.in_the_way([shared]) == shared.name, "whoever has inherited it holds it"
    os.close(copy)
    assert look.in_the_way([alone]) == ""
    look.close()


def test_a_group_has_room_for_so_many(tmp_path: Path) -> None:
    room = Wanted("group:upcloud", room=2)
    with taken(tmp_path, [room]) as (first, _), taken(tmp_path, [room]) as (second, _):
        assert None not in (first, second)
        with taken(tmp_path, [room]) as answer:
            assert answer == (None, "group:upcloud")
    with taken(tmp_path, [room]) as (first, _):
        assert first is not None


def at_gate(task_id: str, gate: Gate, **more: Any) -> dict[str, Any]:
    return {"id": task_id, "operation": "trial.again", "params": {"script": gate.script}, **more}


def waiting_for(site: Installation, workflow_id: str, task_id: str) -> list[str]:
    tasks = {task["task_id"]: task for task in workflow_status(site.folder(workflow_id))["tasks"]}
    found: list[str] = tasks[task_id]["waiting_for"]
    return found


@pytest.mark.nu
def test_a_group_holds_in_all_workflows_of_all_processes(site: Installation, gate: Gates) -> None:
    site.settings(groups_cloud=1)
    first, second = gate("first"), gate("second")
    one = site.submit([at_gate("a", first, group="cloud"), site.mark("free")])
    site.orchestrator()
    first.reached()
    two = site.submit([at_gate("b", second, group="cloud")])
    other = site.start("orchestrator", "run", "--until-empty", "--max-wait", "30")
    wait_for(lambda: "free" in site.mark_lines(), what="what is in no group")
    assert site.states(two) == {}, "there is room for one"
    first.open()
    second.open()
    assert site.wait_ended(one) == "succeeded"
    assert site.wait_ended(two) == "succeeded"
    assert other.wait(40) == 0
    assert site.outcomes(two, "b") == ["succeeded"], "it has waited, and was not tried in vain"
    assert check(site.spool.root) == []


@pytest.mark.nu
def test_an_exclusive_target_waits_for_those_who_share_it_and_they_for_it(site: Installation, gate: Gates) -> None:
    gates = [gate(name) for name in ("g0", "g1", "g2")]

    def using(task_id: str, gate: Gate, how: str, **more: Any) -> dict[str, Any]:
        params = {"name": "x", "script": gate.script}
        return {"id": task_id, "operation": f"trial.{how}", "params": params, **more}

    workflow_id = site.submit(
        [
            using("shared", gates[0], "sharing"),
            using("alone", gates[1], "alone"),
            using("late", gates[2], "sharing", after=["signal"]),
            site.mark("signal"),
        ]
    )
    site.orchestrator()
    gates[0].reached()
    wait_for(lambda: "signal" in site.mark_lines(), what="the signal")
    assert "alone" not in site.states(workflow_id)
    gates[0].open()
    gates[1].reached()
    assert "late" not in site.states(workflow_id), "who came later does not go ahead of who waits"
    gates[1].open()
    gates[2].open()
    assert site.wait_ended(workflow_id) == "succeeded"


@pytest.mark.nu
def test_a_target_is_held_by_what_lives_of_an_attempt_whose_orchestrator_was_killed(
    site: Installation, gate: Gates
) -> None:
    first, second = gate("first"), gate("second")
    params = {"name": "x", "script": first.script}
    one = site.submit([{"id": "a", "operation": "trial.alone", "params": params}])
    orchestrator = site.orchestrator()
    first.reached()
    orchestrator.kill()
    orchestrator.wait()
    look = Look(site.spool.locks)
    assert look.in_the_way([Wanted("target:default/thing/x")]) == "target:default/thing/x"
    two = site.submit([{"id": "b", "operation": "trial.alone", "params": {**params, "script": second.script}}])
    site.orchestrator()
    assert site.states(two) == {}
    first.open()
    second.reached()
    second.open()
    assert [site.wait_ended(each) for each in (one, two)] == ["succeeded", "succeeded"]
    assert look.in_the_way([Wanted("target:default/thing/x")]) == ""
    look.close()


@pytest.mark.nu
def test_tasks_that_want_the_same_targets_in_any_order_never_wait_for_each_other(site: Installation) -> None:
    tasks = [
        {"id": f"t{i}", "operation": "trial.pair", "params": {"one": "ab"[i % 2], "other": "ba"[i % 2]}}
        for i in range(8)
    ]
    assert site.state(site.run(tasks)) == "succeeded"


@pytest.mark.nu
def test_who_waits_for_a_target_when_another_fails_keeps_no_workflow_from_its_end(
    site: Installation, gate: Gates
) -> None:
    waits = gate("g")
    alone = {"operation": "trial.alone", "params": {"name": "x", "script": "true"}}
    tasks: list[dict[str, Any]] = [
        {"id": "first", **alone, "params": {"name": "x", "script": waits.script}},
        {"id": "second", **alone},
        {"id": "bad", "operation": "selftest.fail"},
        *[{"id": task_id, "operation": "selftest.noop", "depends_on": ["first"]} for task_id in ("then", "last")],
    ]
    workflow_id = site.submit(tasks)
    site.orchestrator()
    waits.reached()
    wait_for(lambda: site.states(workflow_id).get("bad") == "failed", 20, "its failure")
    waits.open()
    assert site.wait_ended(workflow_id) == "failed"
    assert site.states(workflow_id) == {"first": "succeeded", "bad": "failed"}


@pytest.mark.nu
def test_who_waits_for_a_target_while_all_is_paused_starts_when_it_is_resumed(site: Installation, gate: Gates) -> None:
    waits, other = gate("g"), gate("h")
    tasks: list[dict[str, Any]] = [
        {"id": "first", "operation": "trial.alone", "params": {"name": "x", "script": waits.script}},
        {"id": "second", "operation": "trial.alone", "params": {"name": "x", "script": "true"}},
        at_gate("third", other),
        echo_of("first"),
    ]
    workflow_id = site.submit(tasks)
    site.orchestrator()
    waits.reached()
    other.reached()
    site.ask("pause", workflow_id)
    site.wait_state(workflow_id, "paused")
    waits.open()
    wait_for(lambda: site.states(workflow_id)["first"] == "succeeded", 20, "the end of the first")
    site.ask("resume", workflow_id)
    wait_for(lambda: site.states(workflow_id).get("second") == "succeeded", 20, lambda: f"the second\n{site.said()}")
    other.open()
    assert site.wait_ended(workflow_id) == "succeeded"


def echo_of(task_id: str) -> dict[str, Any]:
    """So that the other task has the longest way to the end, and goes first."""
    return {"id": "behind", "operation": "selftest.noop", "depends_on": [task_id]}
