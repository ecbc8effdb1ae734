"""Rows of the crash table: a rollback that was cut off."""

from __future__ import annotations

import msgspec

from provisioning.core.workflow import Task, Undo
from tests.crash.host import Host


def undone(task_id: str, *, by: str = "work.again", after: tuple[str, ...] = (), operation: str = "work.once") -> Task:
    return Task(task_id, operation, depends_on=after, undo=Undo(by, {}))


def failing(*after: str) -> Task:
    return Task("fail", "work.fail", depends_on=after, on_failure="rollback")


def undos(host: Host, workflow_id: str) -> dict[str, list[str]]:
    """How the attempts of each undo ended."""
    tasks = (checkpoint.task_id for checkpoint in host.folder(workflow_id).tasks())
    return {task: host.outcomes(workflow_id, task) for task in tasks if task.endswith("~undo")}


def test_failure_without_rollback(host: Host) -> None:
    workflow_id = host.submit(undone("a"), failing("a"))
    host.crash("write_atomic", "/tasks/fail.json", after=True, of=None)
    host.crash("write_atomic", "/workflow.json")
    assert host.state(workflow_id) == "running"
    host.recover()
    assert host.state(workflow_id) == "rolled_back"
    assert undos(host, workflow_id) == {"a~undo": ["succeeded"]}


def test_rollback_half_way(host: Host) -> None:
    workflow_id = host.submit(undone("a"), undone("b", after=("a",)), failing("b"))
    host.crash("write_atomic", "/tasks/a~undo.json")
    assert host.state(workflow_id) == "rolling_back"
    assert undos(host, workflow_id) == {"b~undo": ["succeeded"]}
    host.recover()
    assert host.state(workflow_id) == "rolled_back"
    assert undos(host, workflow_id) == {"a~undo": ["succeeded"], "b~undo": ["succeeded"]}, "none is done twice"


def test_undo_cut_off(host: Host) -> None:
    workflow_id = host.submit(undone("a"), undone("b", by="work.once"), failing("a", "b"))

    host.crash("publish", "/a~undo.1.json")
    host.recover()
    assert host.state(workflow_id) == "rolled_back"
    assert undos(host, workflow_id)["a~undo"][-1] == "succeeded"


def test_rollback_asked_not_begun(host: Host) -> None:
    workflow_id = host.ended(undone("a"))
    host.crash("write_atomic", "/requests/*", after=True, of=lambda: host.ask("rollback", workflow_id))
    assert host.state(workflow_id) == "succeeded"
    host.recover()
    assert host.state(workflow_id) == "rolled_back"
    assert undos(host, workflow_id) == {"a~undo": ["succeeded"]}
    checkpoint = host.workflow(workflow_id)
    assert msgspec.structs.asdict(checkpoint)["applied"][0].verb == "rollback"


def test_end_of_a_rollback_not_recorded(host: Host) -> None:
    workflow_id = host.submit(undone("a"), failing("a"))
    host.crash("write_atomic", "/tasks/a~undo.json", after=True)
    host.recover()
    assert host.state(workflow_id) == "rolled_back"
    assert undos(host, workflow_id) == {"a~undo": ["succeeded"]}
