"""Planning operations: the tasks that they return stand in the place of their own."""

from __future__ import annotations

from typing import Any

import pytest

from provisioning.core import manifest
from provisioning.core.catalogue import Catalogue, Operation, Param
from provisioning.core.workflow import Retry, Workflow
from provisioning.errors import InvalidManifest, NotFound, Problem
from tests.data.manifests.sample import CATALOGUE, SCHEMA, TEXT, operation, render

PLANNER = operation(
    "clusters.plan",
    Param("name", TEXT, positional=True, required=True),
    Param("infra", TEXT, positional=False, required=False, default="default"),
    plans=True,
)
OPERATIONS = Catalogue("more", CATALOGUE.operations | {"clusters.plan": PLANNER})


def read(tasks: list[dict[str, Any]], plan: Any) -> tuple[Workflow, list[dict[str, Any]]]:
    """The workflow, and what the planning operations were asked."""
    asked: list[dict[str, Any]] = []

    def answer(_operation: Operation, params: dict[str, Any]) -> Any:
        asked.append(params)
        if isinstance(plan, Exception):
            raise plan
        return plan

    data = render({"schema": 1, "name": "x", "infra": "demo", "tasks": tasks}, "json")
    sources = manifest.Sources(plan=answer)
    found = manifest.read(data, form="json", file="m", schema=SCHEMA, catalogue=OPERATIONS, sources=sources)
    return found, asked


def refused(tasks: list[dict[str, Any]], plan: Any) -> list[Problem]:
    with pytest.raises(InvalidManifest) as invalid:
        read(tasks, plan)
    return list(invalid.value.problems)


def planning(**more: Any) -> dict[str, Any]:
    return {"id": "k8s", "operation": "clusters.plan", "params": {"name": "one"}, **more}


def echo(task_id: str, value: Any = "x", **more: Any) -> dict[str, Any]:
    return {"id": task_id, "operation": "selftest.echo", "params": {"value": value}, **more}


def test_what_is_planned_stands_in_its_place_under_its_name() -> None:
    plan = [
        echo("cp", for_each=["a", "b"], depends_on=None, timeout=None),
        echo("join", "${each.value}", for_each=["x"], depends_on=["cp"], after=["cp.1"], timeout="5s"),
    ]
    tasks = [
        {"id": "net", "operation": "selftest.noop"},
        planning(depends_on=["net"], timeout="1m", retry={"max_attempts": 2}),
        {"id": "done", "operation": "selftest.noop", "depends_on": ["k8s", "k8s.cp"]},
    ]
    found, asked = read(tasks, plan)
    assert asked == [{"name": "one", "infra": "demo"}]
    assert [(task.id, task.depends_on, task.after) for task in found.tasks] == [
        ("net", (), ()),
        ("k8s.cp.1", ("net",), ()),
        ("k8s.cp.2", ("net",), ()),
        ("k8s.join.1", ("net", "k8s.cp"), ("k8s.cp.1",)),
        ("done", ("k8s", "k8s.cp"), ()),
    ]
    assert [task.timeout_seconds for task in found.tasks[1:4]] == [60, 60, 5]
    assert found.tasks[1].retry == Retry(max_attempts=2)


def test_references_in_a_plan_are_to_its_own_tasks() -> None:
    made = {"id": "a", "operation": "commands.run", "params": {"argv": ["hostname"]}}
    catalogue = OPERATIONS.operations
    assert catalogue["commands.run"].result_schema is None
    problems = refused([planning()], [made, echo("b", "${tasks.a.result}", depends_on=["a"])])
    assert [problem.message for problem in problems] == ["k8s.b: commands.run returns nothing"]
    problems = refused([planning()], [made, echo("b", "${tasks.net.result}", depends_on=["a"])])
    assert "no task is called 'k8s.net'" in problems[0].message


def test_a_plan_of_nothing_is_waited_for_by_nobody() -> None:
    found, _ = read([planning(), {"id": "done", "operation": "selftest.noop", "depends_on": ["k8s"]}], [])
    assert [(task.id, task.depends_on) for task in found.tasks] == [("done", ())]


@pytest.mark.parametrize(
    ("plan", "code", "says"),
    [
        (NotFound("there is no cluster 'one'", hint="see"), "bad-plan", "there is no cluster 'one'"),
        ({"tasks": []}, "bad-plan", "returned a table, and not a list of tasks"),
        ([{"id": "a"}], "missing-key", "tasks[0].operation 'operation' is missing"),
        ([1], "wrong-type", "tasks[0] must be a table"),
        ([echo("a"), echo("a")], "duplicate-id", "another task is called 'a'"),
        ([echo("a", depends_on=["b"])], "unknown-dependency", "no task is called 'b'"),
        ([echo("a", float("nan"))], "not-finite", "not a finite number"),
        ([{"id": "a", "operation": "no.such"}], "unknown-operation", "no operation is called 'no.such'"),
        ([{"id": "a", "operation": "servers.create"}], "bad-params", "'name' is missing"),
        ([planning()], "too-large", "more than 3 inside each other"),
        ([echo(f"{'a' * 64}.{'b' * 64}.{'c' * 64}.dd")], "bad-value", "is too long"),
    ],
)
def test_a_plan_that_cannot_be_followed(plan: Any, code: str, says: str) -> None:
    (problem,) = refused([planning()], plan)
    assert (problem.code, problem.line) == (code, 6)
    assert says in problem.message
    assert problem.field.startswith("tasks.k8s")


def test_a_planning_operation_is_not_asked_with_bad_params() -> None:
    tasks = [echo("a"), planning(params={"nome": "x"}), planning(id="b", params={"name": "${tasks.a.result}"})]
    problems = refused(tasks, AssertionError("it was asked"))
    assert [problem.code for problem in problems] == ["bad-params", "bad-params", "bad-reference"]


def test_planning_operations_are_not_asked_without_end() -> None:
    problems = refused([planning(for_each=[1] * 101)], [echo("a")])
    assert {problem.code for problem in problems} == {"too-large"}
