"""Large workflows are shown by a summary: what it says, when it is written, and what the page then is."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from pathlib import Path

import msgspec
import pytest

from provisioning.core import attempts
from provisioning.core.catalogue import Operation
from provisioning.core.identifiers import LOCAL, SLURM
from provisioning.core.scheduler import Now
from provisioning.core.states import Outcome, TaskState, WorkflowEvent, WorkflowState
from provisioning.core.workflow import FORMAT, Plan, WorkflowCheckpoint
from provisioning.orchestrator import held as held_module
from provisioning.orchestrator.held import SUMMARY_SECONDS, Held
from provisioning.storage import files
from provisioning.storage.active import active_ids, name_active
from provisioning.storage.check import check
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import Spool
from provisioning.views.page_text import status_text
from provisioning.views.status import brief_status, workflow_status
from tests.simulation.values import EPOCH, MANIFEST, NULIB, ONE, at, graph, record, submission

OPERATIONS = {"selftest.noop": Operation("selftest.noop", "noop", "", "", (), None)}


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """A workflow of five tasks, which counts as large here, held by this process."""
    monkeypatch.setattr(held_module, "LARGE_TASKS", 4)
    spool = Spool.create(tmp_path / "spool")
    spool.submit(MANIFEST, "json", submission(ONE, tasks=5))
    lock = spool.lock(ONE)
    assert lock is not None
    name_active(spool.root, ONE)
    folder = spool.claim(ONE)
    folder.prepare()
    plan = Plan(FORMAT, ONE, graph(["a:", "b:", "c:", "d:", "e: a"], on_failure="continue"), dict(OPERATIONS), NULIB)
    folder.save_plan(plan)
    checkpoint = WorkflowCheckpoint(FORMAT, ONE, WorkflowState.RUNNING, "alice", EPOCH, "boot-1", started_at=EPOCH)
    folder.save_workflow(checkpoint)
    made = Held(lock, folder, plan, checkpoint, at(0))
    made.tend(at(0))
    yield made
    made.release()
    spool.close()


def start(held: Held, task_id: str, now: Now) -> None:
    held.record(attempts.started(held.task_checkpoint(task_id), now, "0" * 26), now)


def end(held: Held, task_id: str, outcome: Outcome, now: Now) -> None:
    before = held.task_checkpoint(task_id)
    held.record(attempts.ended(before, held.tasks[task_id], record(task_id, outcome), now, cancelling=False), now)


def test_what_a_start_elsewhere_leaves_is_durable(held: Held) -> None:
    """Of a cluster's attempt, as it outlives a crash of this host; here that of an idempotent operation need not be."""
    operation = msgspec.structs.replace(OPERATIONS["selftest.noop"], idempotent=True)
    held.plan.operations["selftest.noop"] = operation
    kinds = [held.start_kind(held.tasks["a"], executor) for executor in (LOCAL, SLURM)]
    assert [files.DURABLE[kind] for kind in kinds] == [False, True]


def seen(held: Held) -> tuple[dict[str, int], set[str]]:
    summary = WorkflowFolder(held.folder.path).summary()
    assert summary is not None
    assert set(summary.tasks.values()) <= {"selftest.noop"}
    return summary.counts, set(summary.tasks)


def test_it_counts_all_and_names_what_runs_or_has_failed(held: Held) -> None:
    assert seen(held) == ({"pending": 5}, set())
    for task_id in ("a", "b", "c"):
        start(held, task_id, at(2))
    end(held, "a", Outcome.SUCCEEDED, at(2))
    end(held, "b", Outcome.FAILED, at(2))
    held.tend(at(2))
    assert seen(held) == ({"failed": 1, "pending": 2, "running": 1, "succeeded": 1}, {"b", "c"})


def test_it_is_written_once_in_a_while_and_what_came_last_is_not_forgotten(held: Held) -> None:
    start(held, "a", at(0.5))
    held.tend(at(0.5))
    assert seen(held) == ({"pending": 5}, set())
    assert held.next_due() == SUMMARY_SECONDS
    held.tend(at(SUMMARY_SECONDS))
    assert seen(held) == ({"pending": 4, "running": 1}, {"a"})
    assert held.next_due() == inf


def test_the_page_shows_those_tasks_as_they_are_and_counts_the_others(held: Held) -> None:
    for task_id in ("a", "b", "c"):
        start(held, task_id, at(2))
    end(held, "b", Outcome.FAILED, at(2))
    held.tend(at(2))
    end(held, "c", Outcome.SUCCEEDED, at(2.1))  # after the summary
    page, whole = brief_status(held.folder), workflow_status(held.folder)
    assert page.keys() == whole.keys()
    assert [task["task_id"] for task in page["tasks"]] == ["b", "a"]
    assert page["tasks"] == [task for name in "ba" for task in whole["tasks"] if task["task_id"] == name]
    assert (page["tasks_left_out"], whole["tasks_left_out"]) == (3, 0)
    assert page["counts"] == {"failed": 1, "pending": 2, "running": 2}
    assert f"3 more; all: provisioning workflow status {ONE} --tasks" in status_text(page, EPOCH)
    assert "--tasks" not in status_text(whole, EPOCH)


def test_after_the_end_it_counts_as_the_workflow_does(held: Held) -> None:
    start(held, "b", at(0))
    end(held, "b", Outcome.FAILED, at(0))
    held.end(WorkflowEvent.FAILED, "1 of 5 tasks failed", at(0.1))
    held.release()
    page = brief_status(held.folder)
    assert page["counts"] == {"failed": 1, "skipped": 4} == seen(held)[0]
    assert [task["task_id"] for task in page["tasks"]] == ["b"]
    assert active_ids(held.folder.path.parents[1]) == []


def test_without_a_summary_the_page_is_whole(held: Held) -> None:
    (held.folder.path / "summary.json").write_text("?")
    assert brief_status(held.folder) == workflow_status(held.folder)


def test_a_check_names_the_views_that_cannot_be_read(held: Held) -> None:
    start(held, "a", at(0))
    end(held, "a", Outcome.SUCCEEDED, at(0))
    held.end(WorkflowEvent.SUCCEEDED, "", at(1))
    root = held.folder.path.parents[1]
    views = [str(held.folder.path / "summary.json"), str(root / "durations" / "graph.json")]

    def named() -> list[str]:
        return [problem.code for problem in check(root) if problem.file in views]

    assert named() == []
    for view in views:
        Path(view).write_text("?")
    assert named() == ["damaged", "damaged"]


def test_a_small_workflow_has_none(held: Held) -> None:
    (held.folder.path / "summary.json").unlink()
    held._is_large = False
    start(held, "a", at(5))
    held.tend(at(5))
    assert held.folder.summary() is None


def test_one_in_doubt_keeps_its_name(held: Held) -> None:
    root = held.folder.path.parents[1]
    held.change(WorkflowEvent.PAUSED, at(0))
    held.folder.in_doubt = True
    held.release()
    assert active_ids(root) == [ONE]
    held.folder.in_doubt = False
    held.release()
    assert active_ids(root) == []
    assert held.task_checkpoint("a").state is TaskState.PENDING
