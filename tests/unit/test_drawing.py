"""Pictures for many who look: each is made seldom enough, however many other workflows are watched."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest

from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, Plan, WorkflowCheckpoint
from provisioning.errors import NotFound
from provisioning.gateway import drawing
from provisioning.gateway.drawing import Pictures
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import Spool
from provisioning.views.pictures import drawn_graph
from provisioning.views.status import Page, WorkflowView
from tests.simulation.values import EPOCH, NULIB, checkpoint, graph, submission
from tests.unit.used_spool import DIGEST, OPERATIONS
from tests.waiting import wait_for

Looks = Counter[str]


def going_on(spool: Spool, number: int) -> WorkflowFolder:
    """A workflow of two tasks: `a` is done, `b` is not."""
    workflow_id = f"01kc00000000000000000000{number:02}"
    spool.submit(b"{}", "json", submission(workflow_id, digest=DIGEST))
    folder = spool.claim(workflow_id)
    folder.prepare()
    folder.save_plan(Plan(FORMAT, workflow_id, graph(["a:", "b: a"]), OPERATIONS, NULIB))
    folder.save_workflow(WorkflowCheckpoint(FORMAT, workflow_id, WorkflowState.RUNNING, "alice", EPOCH, "boot-1"))
    folder.save_task(checkpoint("a", TaskState.SUCCEEDED, Outcome.SUCCEEDED))
    return folder


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """How often each workflow was looked at; time does not bring another look."""
    found = Looks()

    class Counted(WorkflowView):
        def glance(self) -> Page:
            found[self.folder.workflow_id] += 1
            return super().glance()

    monkeypatch.setattr(drawing, "WorkflowView", Counted)
    monkeypatch.setattr(drawing, "LEAST_SECONDS", 3600.0)
    return found


def test_however_many_workflows_are_watched_each_is_looked_at_once_in_its_time(
    spool: Spool, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "KEPT_TASKS", 4)
    pictures, folders = Pictures(), [going_on(spool, number) for number in range(5)]
    first = [(pictures.graph(folder), pictures.timeline(folder)) for folder in folders]
    assert [(pictures.graph(folder), pictures.timeline(folder)) for folder in folders] == first
    assert set(looks.values()) == {1}
    assert sum(each.tasks for each in pictures._watched.values()) == 4, "what was read is kept of so many tasks only"


def test_pictures_are_let_go_of_too(spool: Spool, looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "KEPT_PICTURES", 3)
    pictures, folders = Pictures(), [going_on(spool, number) for number in range(5)]
    for folder in folders:
        pictures.graph(folder)
    assert list(pictures._watched) == [folder.workflow_id for folder in folders[2:]]
    pictures.graph(folders[0])
    assert looks[folders[0].workflow_id] == 2


def test_one_thread_at_a_time_draws_a_workflow_however_many_others_are_asked_for_meanwhile(
    spool: Spool, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "KEPT_PICTURES", 1)
    draw, begun, go_on = drawn_graph, threading.Event(), threading.Event()

    def slowly(*given: object) -> object:
        begun.set()
        assert go_on.wait(60)
        return draw(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(drawing, "drawn_graph", slowly)
    pictures, slow, others = Pictures(), going_on(spool, 0), [going_on(spool, number) for number in range(1, 4)]
    found: list[object] = []

    def in_a_thread(call: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=lambda: found.append(call()))
        thread.start()
        return thread

    threads = [in_a_thread(lambda: pictures.graph(slow))]
    assert begun.wait(60)
    monkeypatch.setattr(drawing, "drawn_graph", draw)
    for folder in others:
        pictures.graph(folder)
    monkeypatch.setattr(drawing, "drawn_graph", slowly)
    threads += [in_a_thread(lambda: pictures.timeline(slow)), in_a_thread(lambda: pictures.graph(slow))]
    wait_for(lambda: pictures._watched[slow.workflow_id].callers == 3, 60, "three who want the same")
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3
    assert looks[slow.workflow_id] == 1
    assert len(pictures._watched) == 1


def test_before_the_first_attempt_there_is_a_graph_and_no_timeline(spool: Spool, looks: Looks) -> None:
    folder = going_on(spool, 0)
    folder.save_task(checkpoint("a", TaskState.PENDING))
    pictures = Pictures()
    assert pictures.graph(folder).svg
    with pytest.raises(NotFound, match="has begun yet"):
        pictures.timeline(folder)
    assert looks[folder.workflow_id] == 1
