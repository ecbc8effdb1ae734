"""Rolling back for real: what is undone, in which order, after which crashes, and what a status says then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from provisioning.errors import Refused
from provisioning.storage.check import check
from provisioning.views.status import workflow_status
from tests.installation import Gate, Installation

pytestmark = pytest.mark.nu

Gates = Callable[[str], Gate]
FAIL = {"id": "fail", "operation": "selftest.fail"}


def undone_by_mark(site: Installation, task_id: str, **more: Any) -> dict[str, Any]:
    """A task that leaves its id in the file of marks, and whose undo leaves it with a minus."""
    undo = {"operation": "selftest.mark", "params": {"file": "${task.params.file}", "line": "-${task.params.line}"}}
    return site.mark(task_id, undo=undo, **more)


def test_a_failure_undoes_what_succeeded_in_the_reverse_order(site: Installation) -> None:
    tasks = [
        undone_by_mark(site, "a"),
        site.mark("b", depends_on=["a"]),  # without an undo: the order goes through it
        undone_by_mark(site, "c", depends_on=["b"]),
        undone_by_mark(site, "d", depends_on=["a"], preserve=True),
        {**FAIL, "depends_on": ["c", "d"]},
        undone_by_mark(site, "never", depends_on=["fail"]),
    ]
    workflow_id = site.run(tasks, on_failure="rollback")
    assert site.state(workflow_id) == "rolled_back", site.said()
    lines = site.mark_lines()
    assert lines[0] == "a"
    assert sorted(lines[1:4]) == ["b", "c", "d"]
    assert lines[4:] == ["-c", "-a"]
    page = workflow_status(site.folder(workflow_id))
    assert {task["task_id"]: task["state"] for task in page["tasks"]} == {
        "a": "undone",
        "b": "succeeded",
        "c": "undone",
        "d": "succeeded",
        "fail": "failed",
        "never": "skipped",
    }
    assert {each["task_id"]: each["reason"] for each in page["not_undone"]} == {
        "b": "it has no undo",
        "d": "preserved",
        "fail": "it has no undo",
    }
    assert page["counts"] == {"failed": 1, "skipped": 1, "succeeded": 2, "undone": 2}
    assert check(site.spool.root) == []


def test_an_undo_that_fails_is_tried_again_and_stops_no_other(site: Installation) -> None:
    undo = {"operation": "selftest.fail", "retry": {"max_attempts": 2, "initial_delay": "10ms"}}
    tasks = [
        undone_by_mark(site, "a"),
        site.mark("b", depends_on=["a"], undo=undo),
        {**FAIL, "depends_on": ["b"]},
    ]
    workflow_id = site.run(tasks, on_failure="rollback")
    assert site.state(workflow_id) == "rolled_back"
    assert site.workflow(workflow_id).reason == "1 tasks undone; could not be undone: b"
    assert site.outcomes(workflow_id, "b~undo") == ["failed", "failed"]
    assert site.mark_lines() == ["a", "b", "-a"]
    site.ask("rollback", workflow_id)
    site.drain(max_wait=5)
    assert site.outcomes(workflow_id, "b~undo") == ["failed"] * 4, "asked again, it is tried again"
    assert site.mark_lines() == ["a", "b", "-a"]
    assert check(site.spool.root) == []


def test_what_failed_half_way_is_undone_where_its_undo_does_no_harm(site: Installation) -> None:
    echo = {"operation": "selftest.echo", "params": {"value": "${task.params.code}"}}
    once = {"operation": "selftest.mark", "params": {"file": str(site.marks), "line": "never"}}
    tasks = [{**FAIL, "id": "half", "undo": echo}, {**FAIL, "id": "once", "undo": once}]
    workflow_id = site.run(tasks, on_failure="rollback", max_parallel=1)
    assert site.state(workflow_id) == "rolled_back"
    assert site.outcome(workflow_id, "half~undo").result == "provisioning::selftest::failed"
    assert site.mark_lines() == []
    assert "once~undo" not in site.states(workflow_id)


def test_one_task_may_ask_for_more_than_its_workflow(site: Installation) -> None:
    tasks = [undone_by_mark(site, "a"), {**FAIL, "depends_on": ["a"], "on_failure": "rollback"}]
    assert site.state(site.run(tasks, on_failure="continue")) == "rolled_back"
    tasks = [undone_by_mark(site, "b"), {**FAIL, "depends_on": ["b"], "on_failure": "continue"}]
    assert site.state(site.run(tasks, on_failure="rollback")) == "failed"
    assert site.mark_lines() == ["a", "-a", "b"]


def test_a_rollback_on_demand_and_back_again(site: Installation) -> None:
    tasks = [undone_by_mark(site, "a"), undone_by_mark(site, "b", depends_on=["a"]), undone_by_mark(site, "c")]
    workflow_id = site.run(tasks)
    assert site.state(workflow_id) == "succeeded"
    site.ask("rollback", workflow_id, "a")
    site.drain()
    assert site.mark_lines()[3:] == ["-b"], "what waits for a, and neither a itself nor another branch"
    assert site.state(workflow_id) == "rolled_back"
    site.ask("retry", workflow_id)
    site.drain()
    assert site.state(workflow_id) == "succeeded"
    assert site.mark_lines()[4:] == ["b"], "only what was undone is done again"
    site.ask("rollback", workflow_id)
    site.drain()
    assert sorted(site.mark_lines()[5:]) == ["-a", "-b", "-c"]
    assert site.outcomes(workflow_id, "b~undo") == ["succeeded", "succeeded"]
    assert check(site.spool.root) == []
    with pytest.raises(Refused):
        site.ask("pause", workflow_id)


def test_a_rollback_waits_for_what_runs(site: Installation, gate: Gates) -> None:
    waits = gate("g")
    undo = {"operation": "selftest.mark", "params": {"file": str(site.marks), "line": "-run"}}
    tasks = [
        {"id": "run", "operation": "trial.again", "params": {"script": waits.script}, "undo": undo},
        site.mark("next", depends_on=["run"]),
    ]
    workflow_id = site.submit(tasks)
    site.orchestrator()
    waits.reached()
    site.ask("rollback", workflow_id)
    waits.open()
    assert site.wait_ended(workflow_id) == "rolled_back"
    assert site.mark_lines() == ["-run"]


def test_a_rollback_goes_on_after_its_orchestrator_was_killed(site: Installation, gate: Gates) -> None:
    waits = gate("g")
    slow = {"operation": "trial.again", "params": {"script": waits.script}}
    tasks = [
        undone_by_mark(site, "a"),
        {"id": "b", "operation": "selftest.noop", "depends_on": ["a"], "undo": slow},
        undone_by_mark(site, "c", depends_on=["b"]),
        {**FAIL, "depends_on": ["c"]},
    ]
    workflow_id = site.submit(tasks, on_failure="rollback")
    orchestrator = site.orchestrator()
    waits.reached()
    assert site.state(workflow_id) == "rolling_back"
    orchestrator.kill()
    orchestrator.wait()
    waits.open()
    site.drain(max_wait=15)
    assert site.state(workflow_id) == "rolled_back", site.said()
    assert site.mark_lines() == ["a", "c", "-c", "-a"]
    assert site.outcomes(workflow_id, "b~undo") == ["succeeded"], "the undo under way was adopted, not done again"
    assert check(site.spool.root) == []


def test_an_operation_says_how_it_is_undone(site: Installation) -> None:
    begin: dict[str, Any] = {"id": "begin", "operation": "trial.begin", "params": {"file": str(site.marks)}}
    workflow_id = site.run([begin, {**FAIL, "depends_on": ["begin"]}], on_failure="rollback")
    assert site.state(workflow_id) == "rolled_back"
    assert site.mark_lines() == ["t-1 more"], "by name from the params, then from the result, then its default"


def test_a_condition_decides_whether_a_task_is_done(site: Installation) -> None:
    def only(task_id: str, equals: Any, path: str = "result.present", **more: Any) -> dict[str, Any]:
        when = {"task": "look", "path": path, "equals": equals}
        return site.mark(task_id, depends_on=["look"], when=when, **more)

    tasks = [
        {"id": "look", "operation": "selftest.echo", "params": {"value": {"present": False, "count": 1}}},
        only("yes", equals=False),
        only("no", equals=True),
        only("zero", equals=0),
        only("one", equals=1, path="result.count"),
        site.mark("behind", depends_on=["no"]),
        site.mark("after", after=["no", "yes", "one"]),
        only("missing", equals=1, path="result.other", on_failure="continue"),
    ]
    workflow_id = site.run(tasks)
    assert site.state(workflow_id) == "failed"
    assert sorted(site.mark_lines()) == ["after", "one", "yes"]
    assert site.task(workflow_id, "no").reason == "when: look.result.present is false, not true"
    assert site.states(workflow_id)["zero"] == "skipped", "false is no number"
    error = site.outcome(workflow_id, "missing").error
    assert error is not None
    assert error.code == "provisioning::reference::not-found"
    page = workflow_status(site.folder(workflow_id))
    assert {task["task_id"]: task["reason"] for task in page["tasks"]}["behind"] == "no skipped"
    assert check(site.spool.root) == []


def test_a_workflow_of_which_something_was_skipped_has_succeeded(site: Installation) -> None:
    tasks = [
        {"id": "look", "operation": "selftest.echo", "params": {"value": 1}},
        {**FAIL, "depends_on": ["look"], "when": {"task": "look", "path": "result", "equals": 2}},
    ]
    workflow_id = site.run(tasks)
    assert site.state(workflow_id) == "succeeded"
    assert check(site.spool.root) == []
