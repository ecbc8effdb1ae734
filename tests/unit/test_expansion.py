"""`for_each`, groups and references between tasks: what a manifest with them means, and what is refused."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from provisioning.core import manifest
from provisioning.core.catalogue import Catalogue, Param
from provisioning.core.graph import Graph, waves
from provisioning.core.workflow import Workflow
from provisioning.errors import InvalidManifest, Problem, UsageError
from tests.data.manifests.sample import CATALOGUE, SCHEMA, TEXT, WHOLE, operation, render

RESULT = {
    "type": "object",
    "required": ["ip", "cores"],
    "properties": {"ip": TEXT, "cores": WHOLE, "ports": {"type": "array", "items": WHOLE}},
}
LISTED = operation("lists.take", Param("ips", {"type": "array", "items": TEXT}, positional=True, required=True))
OPERATIONS = Catalogue(
    "more",
    CATALOGUE.operations
    | {
        "lists.take": LISTED,
        "servers.make": msgspec.structs.replace(
            operation("servers.make", Param("name", TEXT, positional=True, required=True)), result_schema=RESULT
        ),
    },
)
SETTINGS = {"demo": {"zone": "fi", "hosts": ["a", "b"], "racks": {"r1": {"n": 1}, "r2": {"n": 2}}}}


def read(tasks: list[dict[str, Any]], **head: Any) -> Workflow:
    document = {"schema": 1, "name": "x", "infra": "demo", **head, "tasks": tasks}
    return manifest.read(
        render(document, "json"),
        form="json",
        file="m",
        schema=SCHEMA,
        catalogue=OPERATIONS,
        sources=manifest.Sources(lambda name: SETTINGS[name]),
    )


def refused(tasks: list[dict[str, Any]], **head: Any) -> list[Problem]:
    with pytest.raises(InvalidManifest) as invalid:
        read(tasks, **head)
    return list(invalid.value.problems)


def echo(task_id: str, value: Any = "x", **more: Any) -> dict[str, Any]:
    return {"id": task_id, "operation": "selftest.echo", "params": {"value": value}, **more}


def make(task_id: str, **more: Any) -> dict[str, Any]:
    return {"id": task_id, "operation": "servers.make", "params": {"name": task_id}, **more}


def take(ips: Any) -> dict[str, Any]:
    return {"id": "t", "operation": "lists.take", "params": {"ips": ips}, "depends_on": ["web"]}


def ids(workflow: Workflow) -> list[str]:
    return [task.id for task in workflow.tasks]


def values(workflow: Workflow) -> list[Any]:
    return [task.params["value"] for task in workflow.tasks]


def test_a_list_numbers_from_one_and_a_table_gives_its_keys() -> None:
    found = read([echo("web", "${each.key}=${each.value}", for_each=["a", 2])])
    assert (ids(found), values(found)) == (["web.1", "web.2"], ["1=a", "2=2"])
    found = read([echo("web", "${each.value.n}", for_each={"host-a": {"n": 1}, "host-b": {"n": {"x": []}}})])
    assert (ids(found), values(found)) == (["web.host-a", "web.host-b"], [1, {"x": []}])


def test_for_each_inside_for_each() -> None:
    each = {"eu": {"zone": "z1", "for_each": ["a", "b"]}, "us": {"for_each": {"c": {"for_each": [7]}}}, "x": 1}
    found = read([echo("web", "${each.key} ${each.value}", for_each=each)])
    assert ids(found) == ["web.eu.1", "web.eu.2", "web.us.c.1", "web.x"]
    assert values(found) == ["eu.1 a", "eu.2 b", "us.c.1 7", "x 1"]
    found = read([echo("web", "${each.parent.key}/${each.parent.value.zone}", for_each={"eu": each["eu"]})])
    assert values(found) == ["eu/z1", "eu/z1"]


def test_settings_of_the_infra() -> None:
    found = read([echo("web", ["${infra.zone}", "${each.value}", "${workflow.name}"], for_each="${infra.hosts}")])
    assert values(found) == [["fi", "a", "x"], ["fi", "b", "x"]]
    assert not any(task.references for task in found.tasks)
    (problem,) = refused([echo("a", "${infra.zine}")])
    assert "'zine'" in problem.message
    assert "zone" in problem.hint


def test_settings_that_cannot_be_read_are_a_problem_of_the_manifest() -> None:
    def broken(_infra: str) -> dict[str, Any]:
        raise UsageError("settings.toml is not TOML", hint="correct it there")

    sources = manifest.Sources(broken)
    data = render({"schema": 1, "name": "x", "tasks": [echo("a", "${infra.zone}")]}, "json")
    with pytest.raises(InvalidManifest, match=r"settings\.toml is not TOML"):
        manifest.read(data, form="json", file="m", schema=SCHEMA, catalogue=OPERATIONS, sources=sources)


def test_a_dependency_on_the_name_is_on_all_of_them_and_on_one_by_its_key() -> None:
    found = read(
        [
            echo("web", for_each={"a": 1, "b": 2}),
            echo("conf", for_each={"a": 1, "b": 2}, depends_on=["web.${each.key}"]),
            echo("roll", for_each=["x", "y"], after=["web"], depends_on=["roll.${each.previous}"]),
            echo("lb", depends_on=["web", "roll.2"]),
        ]
    )
    waits = {task.id: (task.depends_on, task.after) for task in found.tasks}
    assert waits["conf.b"] == (("web.b",), ())
    assert waits["roll.1"] == ((), ("web",))
    assert waits["roll.2"] == (("roll.1",), ("web",))
    assert waves(found) == [["web.a", "web.b"], ["conf.a", "conf.b", "roll.1"], ["roll.2"], ["lb"]]


def test_who_waits_for_what_is_nothing_waits_for_nothing() -> None:
    found = read([echo("web", for_each=[]), echo("lb", depends_on=["web"], after=["web"])])
    assert [(task.id, task.depends_on, task.after) for task in found.tasks] == [("lb", (), ())]


def test_a_group_cannot_wait_for_itself() -> None:
    (problem,) = refused([echo("web", for_each=[1, 2], depends_on=["web"])])
    assert problem.code == "cycle"
    assert problem.message.endswith("these tasks wait for each other: web.1 → web → web.1")


def test_problems_of_many_are_told_for_a_few() -> None:
    problems = refused([echo("web", "${each.value.x}", for_each=[{"x": 1}] + [{}] * 50)])
    assert {problem.field for problem in problems} == {"tasks.web.params.value"}
    assert 1 <= len(problems) <= 3
    problems = refused([{**make("web"), "params": {"nam": "x"}, "for_each": [1] * 50}])
    assert len(problems) <= 6
    assert any("web.1" in problem.message for problem in problems)


def test_a_reference_stays_until_its_task_starts() -> None:
    (_, web) = read([make("db"), echo("web", "at ${tasks.db.result.ip} $${x}", depends_on=["db"])]).tasks
    assert web.references == ("tasks.db.result.ip",)
    assert web.params == {"value": "at ${tasks.db.result.ip} $${x}"}
    planned = manifest.planned(Workflow("x", (web,)), OPERATIONS)
    assert planned.tasks[0].params == web.params


@pytest.mark.parametrize(
    "waits",
    [
        {"depends_on": ["web"]},
        {"depends_on": ["web.1", "web.2"]},
        {"depends_on": ["far"]},
    ],
)
def test_references_to_what_is_upstream(waits: dict[str, Any]) -> None:
    chain = [make("web", for_each=[1, 2]), make("near", depends_on=["web"]), make("far", depends_on=["near"])]
    read([*chain, {"id": "t", "operation": "lists.take", "params": {"ips": "${tasks.web.*.result.ip}"}, **waits}])
    read([*chain, echo("t", "${tasks.web.2.result.ports.0}", **waits)])


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (echo("t", "${tasks.web.1.result.ip}"), "may not have succeeded"),
        (echo("t", "${tasks.web.1.result.ip}", after=["web"]), "may not have succeeded"),
        (echo("t", "${tasks.web.1.result.ip}", depends_on=["web.2"]), "may not have succeeded"),
        (echo("t", "${tasks.web.*.result.ip}", depends_on=["web.2"]), "may not have succeeded"),
        (make("t", params={"name": "${tasks.t.result.ip}"}), "may not have succeeded"),
        (echo("t", "${tasks.web.result.ip}", depends_on=["web"]), "'web' is 2 tasks"),
        (echo("t", "${tasks.wed.1.result.ip}", depends_on=["web"]), "no task is called 'wed.1'"),
        (echo("t", "${tasks.wed.*.result.ip}", depends_on=["web"]), "no task is called like 'wed.*'"),
        (echo("t", "${tasks.web.1.result.pi}", depends_on=["web"]), "the result has no 'pi'"),
        (echo("t", "${tasks.web.1.params.name}", depends_on=["web"]), "names no result"),
        (echo("t", "${tasks.quiet.result}", depends_on=["quiet"]), "selftest.noop returns nothing"),
        (take("${tasks.web.1.result.ip}"), "is string, and ips takes array"),
        (make("t", params={"name": "${tasks.web.*.result.ip}"}, depends_on=["web"]), "is array, and name takes string"),
    ],
)  # fmt: skip
def test_references_that_are_refused(task: dict[str, Any], says: str) -> None:
    (problem,) = refused([make("web", for_each=[1, 2]), {"id": "quiet", "operation": "selftest.noop"}, task])
    assert (problem.code, problem.field) == ("bad-reference", "tasks.t.params")
    assert says in problem.message
    assert problem.hint


def test_the_results_of_none_are_an_empty_list() -> None:
    none = make("web", for_each=[])
    workflow = read([none, take("${tasks.web.*.result.ip}") | {"depends_on": ["web"]}])
    assert [(task.params, task.references, task.depends_on) for task in workflow.tasks] == [({"ips": []}, (), ())]
    beside = ["$${x}", "${tasks.web.*.result}", "${tasks.one.result.ip}"]
    workflow = read([none, make("one"), echo("t", beside, depends_on=["web", "one"])])
    assert workflow.tasks[1].params["value"] == ["$${x}", [], "${tasks.one.result.ip}"]
    assert workflow.tasks[1].references == ("tasks.one.result.ip",)
    (problem,) = refused([none, echo("t", "all: ${tasks.web.*.result}", depends_on=["web"])])
    assert "no task is called like 'web.*'" in problem.message
    (problem,) = refused([none, make("t", params={"name": "${tasks.web.*.result.ip}"}, depends_on=["web"])])
    assert problem.code == "bad-params"


def test_a_condition_on_what_is_not_there_is_where_it_is_written() -> None:
    when = {"path": "result.ip", "equals": "x"}
    for other, says in (("none", "no task is called 'none'"), ("web", "may not have succeeded")):
        task = {"id": "t", "operation": "selftest.noop", "when": {**when, "task": other}}
        (problem,) = refused([make("web"), task])
        assert (problem.code, problem.field, says in problem.message) == ("bad-reference", "tasks.t.when", True)


def test_params_beside_references_are_checked() -> None:
    web = make("web")
    good = {"name": "${tasks.web.result.ip}", "cores": "${tasks.web.result.cores}", "plan": "a-${tasks.web.result.ip}"}
    read([web, {"id": "t", "operation": "servers.create", "params": good, "depends_on": ["web"]}])
    bad = good | {"zone": "us", "nome": 1}
    problems = refused([web, {"id": "t", "operation": "servers.create", "params": bad, "depends_on": ["web"]}])
    assert {problem.field for problem in problems} == {"tasks.t.params.zone", "tasks.t.params.nome"}


@pytest.mark.parametrize("form", ["toml", "json"])
def test_what_was_expanded_is_written_and_read_again(form: str) -> None:
    workflow = read(
        [
            make("web", for_each={"eu": {"for_each": [1, 2]}, "us": 1}),
            echo("t", ["$${x}", "${tasks.web.*.result.ip}"], depends_on=["web"], after=["web.eu"]),
        ]
    )
    data = manifest.write(workflow, form=form)
    assert manifest.read(data, form=form, file="m", schema=SCHEMA, catalogue=OPERATIONS) == workflow


def test_ten_thousand_tasks_that_wait_for_ten_thousand() -> None:
    """Each edge by itself would be 100 million."""
    begun = time.process_time()
    found = read([echo("a", for_each=list(range(10_000))), echo("b", for_each=list(range(10_000)), depends_on=["a"])])
    graph = Graph(found.tasks)
    assert sum(map(len, graph.waits)) == 20_000
    assert [len(wave) for wave in waves(found)] == [10_000, 10_000]
    assert time.process_time() - begun < 20
