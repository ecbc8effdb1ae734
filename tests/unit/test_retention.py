"""What leaves the spool when: by age and by count, under its lock, with what it alone needed; and a kill in between."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.config import Retention
from provisioning.core.states import WorkflowState
from provisioning.core.workflow import FORMAT, Plan, Request, Workflow, WorkflowCheckpoint
from provisioning.errors import SpoolUnusable
from provisioning.orchestrator import retention
from provisioning.orchestrator.retention import Cleanup, Retainer, Rule, to_forget
from provisioning.storage import files, trees
from provisioning.storage.spool import Spool
from tests.simulation.values import NULIB, at, submission

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOUR, DAY = 3600.0, 86400.0
ALL = Rule(0.0, None)


OTHER = "e" * 64


def name(number: int) -> str:
    return f"01kc{number:022}"


def ended(
    spool: Spool,
    number: int,
    hours_ago: float,
    *,
    state: WorkflowState = WorkflowState.SUCCEEDED,
    tree: str = NULIB,
    id: str | None = None,
) -> str:
    """A workflow that ended so long ago, with the tree that its plan needs."""
    workflow_id = name(number)
    spool.submit(b"{}", "json", submission(workflow_id, id=id))
    folder = spool.claim(workflow_id)
    folder.prepare()
    files.make_dir(spool.nulib / tree)
    folder.save_plan(Plan(FORMAT, workflow_id, Workflow("w", ()), {}, tree))
    end = None if state is WorkflowState.RUNNING else NOW - timedelta(hours=hours_ago)
    folder.save_workflow(WorkflowCheckpoint(FORMAT, workflow_id, state, "alice", NOW, "boot", ended_at=end))
    files.write_atomic(folder.log_path("a", 1), b"said", durable=False)
    return workflow_id


def clean_up(spool: Spool, rule: Rule, *, dry_run: bool = False, now: datetime = NOW) -> Cleanup:
    made = Cleanup(spool, rule, now, dry_run=dry_run)
    made.finish()
    return made


# The choice

ENDS = st.dictionaries(
    st.integers(0, 99).map(name), st.integers(0, 500).map(lambda hours: NOW - timedelta(hours=hours)), max_size=30
)


@given(ENDS, st.none() | st.floats(0, 500 * HOUR), st.none() | st.integers(0, 40))
def test_what_goes_is_older_than_the_age_or_beyond_the_count(
    ends: dict[str, datetime], age_seconds: float | None, keep: int | None
) -> None:
    gone = to_forget(ends, Rule(age_seconds, keep), NOW)
    kept = ends.keys() - set(gone)
    assert len(set(gone)) == len(gone)
    assert set(gone) <= ends.keys()
    old = {each for each in ends if age_seconds is not None and (NOW - ends[each]).total_seconds() >= age_seconds}
    assert old <= set(gone)
    if keep is None:
        assert set(gone) == old
    else:
        assert len(kept) <= keep
        assert len(kept) == keep or set(gone) == old or keep >= len(ends), "no more goes than must"
    latest = {each: (ends[each], each) for each in ends}
    assert all(latest[left] < latest[right] for left in gone for right in kept)
    assert [latest[each] for each in gone] == sorted(latest[each] for each in gone)


# Workflows


def test_what_ended_long_ago_goes_and_the_rest_stays(spool: Spool) -> None:
    old, young = ended(spool, 1, 49), ended(spool, 2, 47)
    paused, running = (
        ended(spool, 3, 99, state=WorkflowState.PAUSED),
        ended(spool, 4, 99, state=WorkflowState.RUNNING),
    )
    spool.submit(b"{}", "json", submission(name(5)))
    assert clean_up(spool, Rule(2 * DAY, None)).workflows == [old]
    assert spool.workflow_ids() == [young, paused, running, name(5)]
    assert clean_up(spool, Rule(None, 0)).workflows == [young]
    assert os.listdir(spool.tmp) == [spool.scratch.path.name]


def test_only_so_many_of_the_latest_stay(spool: Spool) -> None:
    ids = [ended(spool, number, hours_ago) for number, hours_ago in enumerate([1, 5, 3, 4, 2])]
    assert clean_up(spool, Rule(None, 2)).workflows == [ids[1], ids[3], ids[2]]
    assert spool.workflow_ids() == [ids[0], ids[4]]


def test_a_dry_run_names_all_and_removes_nothing(spool: Spool) -> None:
    old = ended(spool, 1, 49, tree=OTHER)
    aside = spool.rejected / "20260101T000000Z-x"
    aside.mkdir()
    later = datetime.now(UTC) + timedelta(days=3)
    said = clean_up(spool, Rule(HOUR, None), dry_run=True, now=later)
    assert (said.workflows, said.rejected, said.trees) == ([old], [aside.name], [OTHER])
    assert (spool.workflow_ids(), aside.exists(), os.listdir(spool.nulib)) == ([old], True, [OTHER])
    done = clean_up(spool, Rule(HOUR, None), now=later)
    assert (done.workflows, done.rejected, done.trees) == (said.workflows, said.rejected, said.trees)
    assert [os.listdir(path) for path in (spool.workflows, spool.rejected, spool.nulib)] == [[], [], []]


def test_what_somebody_holds_or_asks_something_of_stays(spool: Spool) -> None:
    held, asked = ended(spool, 1, 9), ended(spool, 2, 9)
    lock = spool.lock(held)
    assert lock is not None
    spool.request(Request(FORMAT, name(9), asked, "retry", "alice", NOW))
    assert clean_up(spool, ALL).workflows == []
    lock.release()
    for path, _ in spool.requests_of(asked):
        files.remove(path)
    assert clean_up(spool, ALL).workflows == [held, asked]


def test_what_was_set_going_again_since_it_was_looked_at_stays(spool: Spool) -> None:
    workflow_id = ended(spool, 1, 9)
    steps = Cleanup(spool, ALL, NOW).steps()
    next(steps)  # it was read, and is about to go
    folder = spool.workflow(workflow_id)
    folder.save_workflow(WorkflowCheckpoint(FORMAT, workflow_id, WorkflowState.RUNNING, "alice", NOW, "boot"))
    for _ in steps:
        pass
    assert spool.workflow_ids() == [workflow_id]


def test_one_that_cannot_be_read_or_removed_stops_nothing_else(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged, stubborn, plain = (ended(spool, number, 9) for number in (1, 2, 3))
    (spool.workflows / damaged / "workflow.json").write_bytes(b"{")
    real = Spool.forget

    def refuse(self: Spool, workflow_id: str) -> Path:
        if workflow_id == stubborn:
            raise OSError(28, "No space left on device")
        return real(self, workflow_id)

    monkeypatch.setattr(Spool, "forget", refuse)
    done = clean_up(spool, ALL)
    assert done.workflows == [plain]
    assert len(done.problems) == 1
    assert stubborn in done.problems[0]
    assert spool.workflow_ids() == [damaged, stubborn]


def test_the_id_of_what_has_gone_stays_taken(spool: Spool) -> None:
    workflow_id = ended(spool, 1, 9, id="nightly")
    assert clean_up(spool, ALL).workflows == [workflow_id]
    assert spool.submit(b"{}", "json", submission(name(2), id="nightly")) == workflow_id
    assert spool.workflow_ids() == []


def test_a_kill_at_any_step_leaves_the_workflow_or_what_is_swept(spool: Spool) -> None:
    """Given up after each number of steps; then what an orchestrator does at its start, and another clean-up."""
    for steps_done in range(8):
        workflow_id = ended(spool, steps_done, 9)
        whole = sorted(path.name for path in (spool.workflows / workflow_id).rglob("*"))
        steps = Cleanup(spool, ALL, NOW).steps()
        for _ in range(steps_done):
            next(steps, None)
        if (left := spool.workflows / workflow_id).exists():
            assert sorted(path.name for path in left.rglob("*")) == whole
        files.sweep_scratch(spool.tmp)
        assert os.listdir(spool.tmp) in ([], [spool.scratch.path.name])
        clean_up(spool, ALL)
        assert spool.workflow_ids() == []


# What was rejected, and trees


def test_what_was_rejected_stays_as_long_as_what_ended(spool: Spool) -> None:
    (spool.rejected / "folder").mkdir()
    (spool.rejected / "folder" / "reason.json").write_bytes(b"{}")
    (spool.rejected / "request.json").write_bytes(b"{")
    moment = datetime.now(UTC)
    assert clean_up(spool, Rule(HOUR, 0), now=moment).rejected == []
    assert clean_up(spool, Rule(None, 0), now=moment + timedelta(days=9)).rejected == []
    assert clean_up(spool, Rule(HOUR, None), now=moment + timedelta(hours=2)).rejected == ["folder", "request.json"]
    assert os.listdir(spool.rejected) == []


def test_a_tree_goes_once_no_plan_needs_it_and_it_is_old(spool: Spool) -> None:
    kept = ended(spool, 1, 1, tree=NULIB)
    ended(spool, 2, 9, tree=OTHER)
    moment = datetime.now(UTC)
    rule = Rule((moment - NOW).total_seconds() + 5 * HOUR, None)
    assert clean_up(spool, rule, now=moment).trees == []
    assert spool.workflow_ids() == [kept]
    assert clean_up(spool, Rule(None, 9), now=later()).trees == [OTHER]
    assert os.listdir(spool.nulib) == [NULIB]


def test_a_rejected_entry_that_cannot_be_removed_stops_no_other(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in ("a", "c"):
        (spool.rejected / entry).mkdir()
    for entry in ("b.json", "d.json"):
        (spool.rejected / entry).touch()
    discard, remove = Spool.discard, files.remove
    monkeypatch.setattr(Spool, "discard", lambda self, path: discard(self, _unless(path, "a")))
    monkeypatch.setattr(files, "remove", lambda path: remove(_unless(path, "b.json")))
    done = clean_up(spool, Rule(HOUR, None), now=later())
    assert done.rejected == ["c", "d.json"]
    assert sorted(os.listdir(spool.rejected)) == ["a", "b.json"]
    assert [problem.partition(":")[0] for problem in done.problems] == ["rejected/a", "rejected/b.json"]


def test_a_tree_that_cannot_be_removed_stops_no_other(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    for digest in "abc":
        files.make_dir(spool.nulib / digest)
    discard = Spool.discard
    monkeypatch.setattr(Spool, "discard", lambda self, path: discard(self, _unless(path, "a")))
    monkeypatch.setattr(files, "remove_tree", lambda path: _unless(path, *os.listdir(spool.tmp)))
    done = clean_up(spool, Rule(None, None), now=later())
    assert (done.trees, os.listdir(spool.nulib)) == (["b", "c"], ["a"])
    assert [problem.partition(":")[0] for problem in done.problems] == ["nulib/b", "nulib/c", "nulib/a"]


def _unless(path: Path, *refused: str) -> Path:
    if path.name in refused:
        raise SpoolUnusable(f"cannot remove {path}: the device is busy")
    return path


def later() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=trees.UNUSED_SECONDS)


@pytest.mark.parametrize("content", [b"{", b'{"format": 99, "nulib": "other"}'])
def test_a_plan_that_cannot_be_read_keeps_every_tree(spool: Spool, content: bytes) -> None:
    workflow_id = ended(spool, 1, 1)
    (spool.workflows / workflow_id / "plan.json").write_bytes(content)
    done = clean_up(spool, Rule(None, 99), now=later())
    assert done.trees == []
    assert "plan.json" in done.problems[0]
    assert os.listdir(spool.nulib) == [NULIB]


# By itself


def seconds_of_ticks(spool: Spool, settings: Retention, ticks: Sequence[tuple[float, bool]]) -> list[int]:
    """How many workflows are left after each tick at this second, with the disk low or not."""
    retainer, left = Retainer(spool, settings), []
    for second, low in ticks:
        retainer.step(at(second), pressed=low)
        while retainer._cleanup is not None:
            retainer.step(at(second), pressed=low)
        left.append(len(spool.workflow_ids()))
        ended(spool, 50 + len(left), 1e5)
    return left


def test_it_is_applied_at_the_start_then_once_an_hour_and_sooner_on_a_low_disk(spool: Spool) -> None:
    ended(spool, 1, 1e5)
    ticks = [(10.0, False), (3000.0, False), (3610.0, False), (3640.0, True), (3670.0, True)]
    assert seconds_of_ticks(spool, Retention(age_seconds=HOUR), ticks) == [0, 1, 0, 1, 0]


def test_without_a_setting_nothing_is_read_and_nothing_goes(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(spool, 1, 1e5)
    monkeypatch.setattr(Spool, "claimed_ids", None)
    retainer = Retainer(spool, Retention())
    retainer.step(at(1e6), pressed=True)
    assert retainer.next_due() == float("inf")
    assert len(os.listdir(spool.workflows)) == 1


def test_a_tick_is_held_up_for_a_portion_only(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        ended(spool, number, 1e5)
    monkeypatch.setattr(retention, "PORTION_SECONDS", 0.0)
    retainer = Retainer(spool, Retention(count=1))
    retainer.step(at(0), pressed=False)
    assert len(spool.workflow_ids()) == 5
    assert retainer.next_due() <= 0
    for _ in range(100):
        retainer.step(at(1), pressed=False)
    assert spool.workflow_ids() == [name(4)]
    assert retainer.next_due() == retention.AGAIN_SECONDS
