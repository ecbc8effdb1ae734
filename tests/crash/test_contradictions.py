"""A plan that can be read and contradicts itself stops its workflow and no other; `spool check` says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from provisioning.core.workflow import Task
from provisioning.storage.check import check
from tests.crash.host import Host

Plan = dict[str, Any]


def without_tasks(plan: Plan) -> None:
    plan["workflow"]["tasks"] = []


def with_a_task_twice(plan: Plan) -> None:
    plan["workflow"]["tasks"].append(plan["workflow"]["tasks"][0])


def with_tasks_that_wait_for_each_other(plan: Plan) -> None:
    a, b = plan["workflow"]["tasks"]
    a["after"], b["after"] = ["b"], ["a"]


def with_a_task_that_waits_for_itself(plan: Plan) -> None:
    plan["workflow"]["tasks"][0]["depends_on"] = ["a"]


def with_an_unknown_task(plan: Plan) -> None:
    plan["workflow"]["tasks"][0]["depends_on"] = ["zebra"]


def without_the_operation(plan: Plan) -> None:
    plan["operations"].clear()


def without_the_probe(plan: Plan) -> None:
    for operation in plan["operations"].values():
        operation["probe"] = "work.look"
    plan["workflow"]["tasks"][0]["on_interrupt"] = "probe"


@pytest.mark.parametrize(
    "spoil",
    [
        without_tasks,
        with_a_task_twice,
        with_tasks_that_wait_for_each_other,
        with_a_task_that_waits_for_itself,
        with_an_unknown_task,
        without_the_operation,
        without_the_probe,
    ],
)
def test_a_plan_that_contradicts_itself_stops_its_workflow_alone(host: Host, spoil: Callable[[Plan], None]) -> None:
    broken = host.submit(Task("a", "work.again"), Task("b", "work.again"))
    host.crash("write_atomic", "/workflow.json")
    plan = host.root / "workflows" / broken / "plan.json"
    written = json.loads(plan.read_bytes())
    spoil(written)
    plan.write_text(json.dumps(written))
    other = host.submit(Task("z", "work.again"))
    host.work()
    assert (host.state(other), host.ran()) == ("succeeded", ["z.1"])
    assert host.orchestrator is not None
    assert "plan.json is damaged" in str(host.orchestrator.errors[broken])
    assert ("contradiction", str(plan)) in [(problem.code, problem.file) for problem in check(host.root)]


def test_a_probe_that_never_was_is_no_contradiction_where_nobody_asks_it(host: Host) -> None:
    host.operations["work.once"] = {"idempotent": False, "probe": "work.look"}
    workflow_id = host.submit()
    host.work()
    assert host.state(workflow_id) == "succeeded"
    assert not check(host.root)
