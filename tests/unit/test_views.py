"""Views: the page of a workflow, the list of all, and progress."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.core.workflow import (
    FORMAT,
    AppliedRequest,
    Attempt,
    Backoff,
    OutcomeRecord,
    Plan,
    Submission,
    Task,
    TaskCheckpoint,
    TaskError,
    Workflow,
    WorkflowCheckpoint,
)
from provisioning.errors import InvalidManifest, NotFound, Problem
from provisioning.processes import own_identity
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import Spool
from provisioning.views.listing import list_text, workflow_rows
from provisioning.views.live import Live
from provisioning.views.page_text import explain_text, status_text
from provisioning.views.progress import Changes, Lines, change_text
from provisioning.views.status import Rejected, WorkflowView, find, workflow_status

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ID = "01jd0000000000000000000000"
NOTHING = hashlib.sha256(b"").hexdigest()
"""The digest of an empty manifest."""
BOOT = "a-boot-long-ago"


TASKS = (
    Task("a", "selftest.noop"),
    Task("b", "selftest.fail", depends_on=("a",)),
    Task("c", "selftest.noop", depends_on=("b",)),
    Task("d", "selftest.noop", after=("b",)),
)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.create(tmp_path / "spool")


def submitted(spool: Spool, **more: Any) -> WorkflowFolder:
    """A workflow in `incoming/`."""
    submission = Submission(FORMAT, ID, "four", "demo", "alice", "cli", NOTHING, START, len(TASKS), **more)
    spool.submit(b"", "toml", submission)
    return spool.find(ID)


def claimed(spool: Spool, state: WorkflowState = WorkflowState.RUNNING, **more: Any) -> WorkflowFolder:
    """A workflow in `workflows/`, with a plan and a checkpoint; this process holds it."""
    submitted(spool)
    folder = spool.claim(ID)
    folder.prepare()
    folder.save_plan(Plan(FORMAT, ID, Workflow("four", TASKS), {}, "0" * 64))
    facts: dict[str, Any] = {"holder": own_identity(), "started_at": START, **more}
    folder.save_workflow(WorkflowCheckpoint(FORMAT, ID, state, "alice", START, BOOT, **facts))
    return folder


def attempt(number: int, outcome: Outcome | None = None, error: TaskError | None = None) -> Attempt:
    ended = START + timedelta(seconds=1) if outcome else None
    return Attempt(number, START, BOOT, "0" * 26, ended, outcome, 0 if outcome else None, error)


def save(folder: WorkflowFolder, task_id: str, state: TaskState, *attempts: Attempt, **more: Any) -> None:
    folder.save_task(TaskCheckpoint(FORMAT, task_id, state, attempts, **more))


BROKEN = TaskError("provisioning::selftest::failed", "it \x1b[31mbroke", "look at it")


def test_the_page_has_the_shape_that_others_rely_on(spool: Spool) -> None:
    folder = claimed(spool, applied=(AppliedRequest(ID, "pause", "bob", START, ("a",)),))
    save(folder, "a", TaskState.SUCCEEDED, attempt(1, Outcome.SUCCEEDED))
    record = OutcomeRecord(FORMAT, ID, "a", 1, Outcome.SUCCEEDED, START, START, 0, result={"ip": "::1"})
    (folder.outcome_path("a", 1)).write_bytes(msgspec.json.encode(record))
    save(folder, "b", TaskState.RUNNING, attempt(1, Outcome.FAILED, BROKEN), attempt(2))
    page = workflow_status(folder)
    json.dumps(page)
    wanted = "workflow_id name infra state priority submitted_at started_at ended_at counts tasks"
    assert set(wanted.split()) <= page.keys()
    assert page["state"] == "running"
    assert page["counts"] == {"pending": 2, "running": 1, "succeeded": 1}
    assert page["requests"] == [{"verb": "pause", "operator": "bob", "at": "2026-01-02T03:04:05Z", "tasks": ["a"]}]
    a, b, c, d = page["tasks"]
    assert {"task_id", "operation", "state", "waiting_for", "attempts", "result"} <= a.keys()
    assert a["result"] == {"ip": "::1"}
    assert b["attempts"][0] == {
        "attempt": 1,
        "outcome": "failed",
        "started_at": "2026-01-02T03:04:05Z",
        "ended_at": "2026-01-02T03:04:06Z",
        "exit_code": 0,
        "error": {"code": BROKEN.code, "msg": BROKEN.msg, "help": BROKEN.help, "retry_after": None},
    }
    assert b["attempts"][1]["outcome"] is None
    assert (c["waiting_for"], d["waiting_for"]) == (["dependency:b"], ["dependency:b"])
    text = status_text(page, START)
    assert "\x1b" not in text
    assert "pause of a by bob" in text
    assert "waits for b" in text


def test_a_submission_that_nobody_has_claimed_is_queued(spool: Spool) -> None:
    page = workflow_status(submitted(spool))
    assert (page["state"], page["counts"], page["tasks"]) == ("queued", {"pending": 4}, [])
    assert "start an orchestrator" in explain_text(page, [], worked=False)
    assert "as soon as" in explain_text(page, [], worked=True)


def test_a_running_workflow_that_nobody_holds_is_shown_as_abandoned(spool: Spool) -> None:
    page = workflow_status(claimed(spool, holder=None))
    assert page["state"] == "abandoned"
    assert "nobody runs it" in status_text(page, START)
    assert [row["state"] for row in workflow_rows(spool)] == ["abandoned"]


def test_a_paused_workflow_that_nobody_holds_is_paused(spool: Spool) -> None:
    page = workflow_status(claimed(spool, WorkflowState.PAUSED, holder=None))
    assert page["state"] == "paused"
    assert page["tasks"][0]["waiting_for"] == ["paused"]
    assert "resume" in explain_text(page, [], worked=True)


def test_what_never_started_of_an_ended_workflow_is_skipped(spool: Spool) -> None:
    folder = claimed(spool, WorkflowState.FAILED, reason="1 of 4 tasks failed", ended_at=START)
    save(folder, "a", TaskState.SUCCEEDED, attempt(1, Outcome.SUCCEEDED))
    save(folder, "b", TaskState.FAILED, attempt(1, Outcome.FAILED, BROKEN))
    page = workflow_status(folder)
    assert [task["state"] for task in page["tasks"]] == ["succeeded", "failed", "skipped", "skipped"]
    assert page["tasks"][2]["reason"] == "b failed"
    told = explain_text(page, [], worked=True)
    assert "task b is failed: provisioning::selftest::failed: it \\x1b[31mbroke" in told
    assert "look at it" in told
    assert "task a" not in told
    assert "task a" in explain_text(page, ["a"], worked=True)


def test_what_never_started_of_a_cancelled_workflow_is_cancelled(spool: Spool) -> None:
    page = workflow_status(claimed(spool, WorkflowState.CANCELLED, reason="cancelled by bob"))
    assert page["counts"] == {"cancelled": 4}
    assert page["tasks"][0]["reason"] == "cancelled by bob"


def test_a_held_task_says_what_a_person_must_do(spool: Spool) -> None:
    folder = claimed(spool, WorkflowState.PAUSED)
    save(folder, "a", TaskState.PENDING, attempt(1, Outcome.INTERRUPTED), held=True, reason="interrupted")
    page = workflow_status(folder)
    assert page["held"] == ["a"]
    assert "held" in page["tasks"][0]["waiting_for"]
    told = explain_text(page, [], worked=True)
    assert f"provisioning workflow retry {ID} --task a" in told
    assert f"provisioning workflow cancel {ID}\n" in f"{told}\n"
    assert "workflow resume" not in told, "it would be refused"


def test_a_task_interrupted_too_often_says_so_and_what_to_do(spool: Spool) -> None:
    folder = claimed(spool, WorkflowState.FAILED, ended_at=START)
    died = TaskError("provisioning::attempt::interrupted", "its worker died")
    made = [attempt(number, Outcome.INTERRUPTED, died) for number in (1, 2, 3)]
    save(folder, "a", TaskState.FAILED, *made, reason="interrupted-too-often")
    page = workflow_status(folder)
    assert "interrupted-too-often: provisioning::attempt::interrupted: its worker died" in status_text(page, START)
    told = explain_text(page, [], worked=True)
    assert "interrupted 3 times" in told
    assert f"provisioning workflow retry {ID} --task a" in told


def test_what_failed_in_a_paused_workflow_is_named_to_be_tried_again(spool: Spool) -> None:
    folder = claimed(spool, WorkflowState.PAUSED)
    save(folder, "b", TaskState.FAILED, attempt(1, Outcome.FAILED, BROKEN))
    assert f"provisioning workflow retry {ID} --task b" in explain_text(workflow_status(folder), [], worked=True)


def test_what_runs_of_an_abandoned_workflow_is_said_to_go_on(spool: Spool) -> None:
    folder = claimed(spool, holder=None)
    save(folder, "a", TaskState.RUNNING, attempt(1))
    page = workflow_status(folder)
    for text in (status_text(page, START), explain_text(page, [], worked=False)):
        assert "what runs goes on" in text
        assert "provisioning orchestrator start" in text


def test_a_backoff_says_when(spool: Spool) -> None:
    folder = claimed(spool)
    later = datetime.now(UTC) + timedelta(hours=1)
    save(folder, "a", TaskState.PENDING, attempt(1, Outcome.FAILED, BROKEN), backoff=Backoff(BOOT, 0.0, later))
    task = workflow_status(folder)["tasks"][0]
    assert task["waiting_for"] == ["backoff"]
    assert task["next_attempt_at"] == later.isoformat().replace("+00:00", "Z")


def test_a_view_sees_what_changes(spool: Spool) -> None:
    folder = claimed(spool)
    view = WorkflowView(folder)
    assert view.glance()["counts"] == {"pending": 4}
    save(folder, "a", TaskState.RUNNING, attempt(1))
    assert view.glance()["counts"] == {"pending": 3, "running": 1}
    save(folder, "a", TaskState.SUCCEEDED, attempt(1, Outcome.SUCCEEDED))
    assert view.glance()["counts"] == {"pending": 3, "succeeded": 1}


def test_one_damaged_workflow_does_not_hide_the_others(spool: Spool) -> None:
    folder = claimed(spool)
    other = "01jd0000000000000000000001"
    spool.submit(b"", "toml", Submission(FORMAT, other, "next", "demo", "bob", "cli", NOTHING, START, 1))
    (folder.path / "workflow.json").write_bytes(b"{")
    rows = workflow_rows(spool)
    assert [row["state"] for row in rows] == ["queued", "damaged"]
    assert "damaged" in list_text(rows)
    assert [row["workflow_id"] for row in workflow_rows(spool, limit=1)] == [other]
    assert [row["workflow_id"] for row in workflow_rows(spool, states=frozenset({"damaged"}))] == [ID]


GONE = InvalidManifest([Problem("unknown-operation", "gone", field="tasks.a")])


@pytest.mark.parametrize("prefix", [ID, "01jd"])
def test_what_was_rejected_is_found_by_its_id_or_a_prefix(spool: Spool, prefix: str) -> None:
    path = spool.reject(submitted(spool), GONE)
    with pytest.raises(Rejected, match="gone") as caught:
        find(spool, prefix)
    assert str(path) in caught.value.message
    assert caught.value.details["workflow_id"] == ID


def test_a_prefix_counts_what_was_rejected_too(spool: Spool) -> None:
    spool.reject(submitted(spool), GONE)
    other = "01jd0000000000000000000001"
    spool.submit(b"", "toml", Submission(FORMAT, other, "next", "demo", "bob", "cli", NOTHING, START, 1))
    assert find(spool, other).workflow_id == other
    with pytest.raises(Rejected):
        find(spool, ID)
    with pytest.raises(NotFound, match="begins 2"):
        find(spool, "01jd")
    for unknown in ("01jz", ""):
        with pytest.raises(NotFound, match="no workflow"):
            find(spool, unknown)


def test_what_was_rejected_is_a_row(spool: Spool) -> None:
    path = spool.reject(submitted(spool), GONE)
    (spool.rejected / f"{ID}-{ID}.{ID}.json").write_text("{")  # a damaged request
    (row,) = workflow_rows(spool, states=frozenset({"rejected"}))
    assert (row["workflow_id"], row["state"], row["reason"]) == (ID, "rejected", "gone")
    assert "rejected" in list_text([row])
    (path / "reason.json").write_text("{")
    (row,) = workflow_rows(spool)
    assert "cannot be read" in row["reason"]


def test_an_ended_workflow_without_its_plan_keeps_its_state(spool: Spool) -> None:
    folder = claimed(spool, WorkflowState.SUCCEEDED, ended_at=START, counts={"succeeded": 4})
    (folder.path / "plan.json").unlink()
    page = workflow_status(folder)
    (row,) = workflow_rows(spool)
    for key in ("state", "reason", "counts", "ended_at"):
        assert page[key] == row[key]
    assert (page["state"], page["tasks"]) == ("succeeded", [])
    assert "plan.json" in page["reason"]


# Progress.


def pages(spool: Spool) -> list[dict[str, Any]]:
    """A workflow before, while and after its task a runs and its task b fails."""
    folder = claimed(spool)
    view = WorkflowView(folder)
    seen = [view.glance()]
    save(folder, "a", TaskState.RUNNING, attempt(1))
    seen.append(view.glance())
    save(folder, "a", TaskState.SUCCEEDED, attempt(1, Outcome.SUCCEEDED))
    save(folder, "b", TaskState.FAILED, attempt(1, Outcome.FAILED, BROKEN), attempt(2, Outcome.FAILED, BROKEN))
    folder.save_workflow(WorkflowCheckpoint(FORMAT, ID, WorkflowState.FAILED, "alice", START, BOOT, reason="1 failed"))
    return [*seen, view.glance()]


def test_progress_off_a_terminal_is_a_line_for_each_change(spool: Spool) -> None:
    out = io.StringIO()
    lines = Lines(out)
    for page in pages(spool):
        lines.update(page)
        lines.update(page)
    lines.close()
    assert out.getvalue().splitlines() == [
        f"workflow {ID} running",
        "a running",
        "a succeeded 1.0s",
        "b failed (attempt 2) 1.0s: provisioning::selftest::failed: it \\x1b[31mbroke; hint: look at it",
        "c skipped: b failed",
        "d skipped: 1 failed",
        f"workflow {ID} failed: 1 failed",
    ]


def test_progress_as_json_is_an_object_a_line(spool: Spool) -> None:
    out = io.StringIO()
    lines = Lines(out, as_json=True)
    for page in pages(spool):
        lines.update(page)
    objects = [json.loads(line) for line in out.getvalue().splitlines()]
    assert objects[0] == {"workflow_id": ID, "state": "running", "reason": ""}
    assert objects[1]["task_id"] == "a"
    assert objects[-1]["state"] == "failed"


def test_live_progress_keeps_what_went_wrong(spool: Spool) -> None:
    out = io.StringIO()
    live = Live(out)
    for page in pages(spool):
        live.update(page)
    live.close()
    assert "b failed (attempt 2)" in out.getvalue()
    assert "\x1b[31mbroke" not in out.getvalue()


def test_an_attempt_that_is_to_be_repeated_says_when(spool: Spool) -> None:
    folder = claimed(spool)
    changes = Changes()
    changes.of(WorkflowView(folder).glance())
    save(folder, "a", TaskState.PENDING, attempt(1, Outcome.FAILED, BROKEN), backoff=Backoff(BOOT, 0.0, START))
    (change,) = changes.of(WorkflowView(folder).glance())
    assert change_text(change).startswith("a pending 1.0s: provisioning::selftest::failed")
    assert "next attempt at" in change_text(change)
