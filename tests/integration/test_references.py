"""Fan-out, references and planning operations, worked by a real orchestrator."""

from __future__ import annotations

from typing import Any

import pytest

from provisioning.errors import InvalidManifest
from provisioning.storage.check import check
from tests.installation import Installation

pytestmark = pytest.mark.nu


def echo(task_id: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"id": task_id, "operation": "selftest.echo", "params": {"value": value}, **more}


def result(site: Installation, workflow_id: str, task_id: str) -> Any:
    return site.outcome(workflow_id, task_id).result


def test_results_reach_those_that_refer_to_them(site: Installation) -> None:
    tasks = [
        echo("web", {"name": "${each.key}", "port": "${each.value}", "odd": "$${x}"}, for_each={"a": 80, "b": 81}),
        echo("one", "${tasks.web.b.result.port}", depends_on=["web"]),
        echo("all", ["${tasks.web.*.result.name}", "${tasks.web.a.result} "[:-1]], depends_on=["web"]),
        echo("text", "${workflow.id}: ${tasks.one.result}, $${y}", depends_on=["one"]),
        echo("odd", "${tasks.web.a.result.odd}", depends_on=["web.a"]),
    ]
    workflow_id = site.run(tasks)
    assert site.state(workflow_id) == "succeeded", site.said()
    assert result(site, workflow_id, "one") == 81
    assert result(site, workflow_id, "all") == [["a", "b"], {"name": "a", "port": 80, "odd": "${x}"}]
    assert result(site, workflow_id, "text") == f"{workflow_id}: 81, ${{y}}"
    assert result(site, workflow_id, "odd") == "${x}", "a result is data, whatever it looks like"
    assert site.task(workflow_id, "one").params == {"value": 81}
    assert site.task(workflow_id, "web.a").params is None, "all of it is in the plan"
    assert check(site.spool.root) == []


def test_what_is_not_in_a_result_fails_the_task_that_refers_to_it(site: Installation) -> None:
    tasks = [
        echo("a", {"x": 1}),
        echo("gone", "${tasks.a.result.y}", depends_on=["a"], retry={"max_attempts": 3}),
        echo("inside", "it is ${tasks.a.result}", depends_on=["a"]),
        {
            "id": "wrong",
            "operation": "selftest.sleep",
            "params": {"seconds": "${tasks.b.result}"},
            "depends_on": ["b"],
        },
        echo("b", "a text"),
    ]
    workflow_id = site.run(tasks, on_failure="continue")
    errors = {name: site.outcome(workflow_id, name).error for name in ("gone", "inside", "wrong")}
    codes = {name: error.code for name, error in errors.items() if error}
    assert codes == {
        "gone": "provisioning::reference::not-found",
        "inside": "provisioning::reference::not-found",
        "wrong": "provisioning::reference::invalid-params",
    }
    assert site.outcomes(workflow_id, "gone") == ["failed"], "the same result will be as wrong again"
    assert check(site.spool.root) == []


def test_a_planning_operation_is_asked_before_anything_is_accepted_and_again_at_the_claim(site: Installation) -> None:
    tasks = [
        echo("first", 1),
        {"id": "p", "operation": "trial.plan", "params": {"names": ["a", "b"]}, "depends_on": ["first"]},
        echo("last", "${tasks.p.all.result}", depends_on=["p"]),
    ]
    workflow_id = site.run(tasks)
    assert site.state(workflow_id) == "succeeded", site.said()
    assert result(site, workflow_id, "last") == ["hello a", "hello b"]
    assert sorted(site.states(workflow_id)) == ["first", "last", "p.a", "p.all", "p.b"]
    with pytest.raises(InvalidManifest, match="provisioning::trial::refused: it was asked to"):
        site.submit([{"id": "p", "operation": "trial.plan", "params": {"names": [], "fail": True}}])


def test_settings_of_the_infra_are_those_of_the_claim(site: Installation) -> None:
    folder = site.root / "infra" / "demo"
    folder.mkdir(parents=True)
    (folder / "settings.toml").write_text('hosts = ["a", "b"]\nsince = 2026-01-01\n')
    site.settings(paths_infra=site.root / "infra")
    tasks = [echo("web", ["${each.value}", "${infra.since}"], for_each="${infra.hosts}")]
    workflow_id = site.submit(tasks, infra="demo")
    assert site.folder(workflow_id).submission().tasks == 2
    site.drain()
    assert [result(site, workflow_id, f"web.{n}") for n in (1, 2)] == [["a", "2026-01-01"], ["b", "2026-01-01"]]
    other = site.submit(tasks, infra="demo")
    (folder / "settings.toml").write_text("hosts = 1\n")
    site.drain()
    assert site.spool.folder_path(other) is None, "what it refers to has gone: it was rejected"
