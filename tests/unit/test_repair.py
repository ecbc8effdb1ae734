"""What a repair does with each kind of damage, and what it must never make of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from provisioning.core.catalogue import Operation
from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, Plan, Request, WorkflowCheckpoint
from provisioning.storage import files
from provisioning.storage.aside import Repaired
from provisioning.storage.check import check
from provisioning.storage.checkpoint import encode, load
from provisioning.storage.ids import Reservation
from provisioning.storage.logs import open_attempt_log
from provisioning.storage.repair import repair
from provisioning.storage.spool import Spool
from tests.simulation.values import EPOCH, NULIB, checkpoint, graph, record, submission

ONE, TWO = (f"01kc000000000000000000000{number}" for number in (1, 2))
EMPTY = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
"""SHA-256 of the manifest `{}`."""


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """A workflow with `a` done at its second attempt, `b` under way; another that is queued."""
    made = Spool.create(tmp_path / "spool")
    for workflow_id in (ONE, TWO):
        made.submit(b"{}", "json", submission(workflow_id, id=f"id-{workflow_id[-1]}", digest=EMPTY))
    folder = made.claim(ONE)
    folder.prepare()
    operations = {"selftest.noop": Operation("selftest.noop", "noop", "", "", (), None)}
    folder.save_plan(Plan(FORMAT, ONE, graph(["a:", "b: a"]), operations, NULIB))
    folder.save_workflow(WorkflowCheckpoint(FORMAT, ONE, WorkflowState.RUNNING, "alice", EPOCH, "boot-1"))
    for number, outcome in enumerate((Outcome.FAILED, Outcome.SUCCEEDED), 1):
        ended = msgspec.structs.replace(record("a", outcome, number), workflow_id=ONE)
        files.write_once(folder.outcome_path("a", number), encode(ended), scratch=made.scratch)
        files.append(folder.log_path("a", number), b"said")
    folder.save_task(checkpoint("a", TaskState.SUCCEEDED, Outcome.FAILED, Outcome.SUCCEEDED))
    folder.save_task(checkpoint("b", TaskState.RUNNING, None))
    files.append(folder.log_path("b", 1), b"began")
    tree = {"tree/a.nu": b"", "entries/selftest.noop.nu": b"", "catalogue.json": b"{}"}
    files.publish_tree(tree, made.nulib / NULIB, made.scratch)
    assert check(made.root) == []
    yield made
    made.close()


def repaired(spool: Spool) -> list[Repaired]:
    """What was done in a repair after which nothing is wrong."""
    account = repair(spool.root)
    assert check(spool.root) == []
    assert all(one.done for one in account)
    return account


def aside(spool: Spool) -> dict[str, bytes]:
    """What lies in `rejected/`, by the place where it was."""
    found = {}
    for folder in spool.rejected.iterdir():
        reason = json.loads((folder / "reason.json").read_bytes())
        for path in folder.iterdir():
            if path.name != "reason.json" and path.is_file():
                found[reason["from"]] = path.read_bytes()
    return found


def test_a_sound_spool_is_left_alone(spool: Spool) -> None:
    assert repaired(spool) == []
    assert list(spool.rejected.iterdir()) == []


@pytest.mark.parametrize("damage", [b"{}\n", b"\n", None])
def test_a_task_is_rebuilt_from_its_outcomes_and_left_to_recovery(spool: Spool, damage: bytes | None) -> None:
    path = spool.workflows / ONE / "tasks" / "a.json"
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    repaired(spool)
    task = spool.workflow(ONE).task("a")
    assert (task.state, [each.outcome for each in task.attempts]) == (TaskState.RUNNING, [Outcome.FAILED, None])
    assert not (spool.tmp / task.attempts[-1].worker).exists()
    assert aside(spool) == ({} if damage is None else {f"workflows/{ONE}/tasks/a.json": damage})


def test_an_attempt_of_which_only_the_log_is_left_is_still_under_way(spool: Spool) -> None:
    """Recovery calls it interrupted, and asks what was decided for that: it is not simply made again."""
    (spool.workflows / ONE / "tasks" / "b.json").write_bytes(b"{")
    repaired(spool)
    task = spool.workflow(ONE).task("b")
    assert (task.state, [each.outcome for each in task.attempts]) == (TaskState.RUNNING, [None])


def test_a_task_of_which_nothing_is_left_waits_for_a_person(spool: Spool) -> None:
    (spool.workflows / ONE / "tasks" / "b.json").write_bytes(b"{}\n")
    spool.workflow(ONE).log_path("b", 1).unlink()
    (one,) = repaired(spool)
    task = spool.workflow(ONE).task("b")
    assert (task.state, task.held, "retry --task b" in one.text) == (TaskState.PENDING, True, True)


def test_an_ended_workflow_has_its_tasks_ended(spool: Spool) -> None:
    folder = spool.workflow(ONE)
    folder.save_workflow(WorkflowCheckpoint(FORMAT, ONE, WorkflowState.FAILED, "alice", EPOCH, "boot-1"))
    (folder.path / "tasks" / "a.json").write_bytes(b"{")
    repaired(spool)
    states = {task.task_id: task.state for task in folder.tasks()}
    assert states == {"a": TaskState.SUCCEEDED, "b": TaskState.FAILED}


@pytest.mark.parametrize("name", ["tasks", "outcomes", "logs"])
def test_a_folder_that_is_none_is_replaced_and_nothing_counts_as_never_begun(spool: Spool, name: str) -> None:
    shutil.rmtree(spool.workflows / ONE / name)
    (spool.workflows / ONE / name).write_bytes(b"no folder")
    repair(spool.root)
    assert aside(spool)[f"workflows/{ONE}/{name}"] == b"no folder"
    folder = spool.workflow(ONE)
    assert folder.task("b").state is TaskState.RUNNING
    assert folder.log_path("b", 1).exists()


@pytest.mark.parametrize("damage", [b"{", None])
def test_a_lost_workflow_checkpoint_is_rebuilt_as_paused(spool: Spool, damage: bytes | None) -> None:
    path = spool.workflows / ONE / "workflow.json"
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    (one,) = repaired(spool)
    rebuilt = spool.workflow(ONE).workflow()
    assert rebuilt is not None
    assert (rebuilt.state, rebuilt.operator) == (WorkflowState.PAUSED, "alice")
    assert f"workflow resume {ONE}" in one.text


def test_a_lost_plan_is_named_whatever_else_is_wrong(spool: Spool) -> None:
    (spool.workflows / ONE / "plan.json").unlink()
    (spool.workflows / ONE / "manifest.json").write_bytes(b"{ }")
    assert {problem.code for problem in check(spool.root)} == {"no-plan", "wrong-digest"}
    repaired(spool)
    assert spool.claimed_ids() == []


@pytest.mark.parametrize("name", ["plan.json", "submission.json", "manifest.json"])
@pytest.mark.parametrize("claimed", [True, False])
def test_what_cannot_be_rebuilt_takes_its_workflow_with_it(spool: Spool, name: str, claimed: bool) -> None:
    parent, workflow_id = (spool.workflows, ONE) if claimed else (spool.incoming, TWO)
    (parent / workflow_id / name).write_bytes(b"{")
    (parent / workflow_id / "reason.json").write_bytes(b"mine")
    request = Request(FORMAT, TWO, workflow_id, "cancel", "alice", EPOCH)
    spool.request(request)
    repaired(spool)
    (folder,) = (path for path in spool.rejected.iterdir() if path.name.endswith(f"Z-{workflow_id}"))
    assert (folder / name).read_bytes() == b"{"
    assert json.loads((folder / "reason.json").read_bytes())["from"].endswith(f"{workflow_id}/{name}")
    assert b"mine" in aside(spool).values()
    assert encode(request) in aside(spool).values()


def test_while_an_attempt_lives_its_workflow_is_left(spool: Spool) -> None:
    (spool.workflows / ONE / "plan.json").write_bytes(b"{")
    descriptor = open_attempt_log(spool.workflow(ONE).log_path("b", 1))
    assert descriptor is not None
    (one,) = repair(spool.root)
    assert (one.done, "still running" in one.text) == (False, True)
    os.close(descriptor)
    assert repair(spool.root)[0].done


def test_an_outcome_of_a_later_attempt_is_taken_and_the_attempt_not_made_again(spool: Spool) -> None:
    ended = msgspec.structs.replace(record("b", Outcome.SUCCEEDED, 2), workflow_id=ONE)
    files.write_once(spool.workflow(ONE).outcome_path("b", 2), encode(ended), scratch=spool.scratch)
    repaired(spool)
    task = spool.workflow(ONE).task("b")
    assert [(each.number, each.outcome) for each in task.attempts] == [(1, Outcome.INTERRUPTED), (2, None)]


def test_a_lost_outcome_cannot_be_repaired(spool: Spool) -> None:
    path = spool.workflow(ONE).outcome_path("a", 2)
    path.write_bytes(b"{")
    assert [one.done for one in repair(spool.root)] == [True, False]
    assert [problem.code for problem in check(spool.root)] == ["no-outcome"]
    assert spool.workflow(ONE).task("a").state is TaskState.SUCCEEDED


def test_an_id_is_kept_again_for_the_workflow_that_has_it(spool: Spool) -> None:
    (spool.ids / "id-1.json").write_bytes(b"{")
    (spool.ids / "id-2.json").unlink()
    repaired(spool)
    assert [load(spool.ids / f"id-{n}.json", Reservation).workflow_id for n in (1, 2)] == [ONE, TWO]


def test_an_id_of_nobody_stays_refused(spool: Spool) -> None:
    """Freed, it could be submitted and done once more."""
    path = spool.ids / "gone.json"
    path.write_bytes(b"{")
    (one,) = repair(spool.root)
    assert (one.done, path.read_bytes()) == (False, b"{")


def test_foreign_names_damaged_requests_and_leftovers_are_moved(spool: Spool) -> None:
    places = ["stray", f"workflows/{ONE}/stray", "requests/x.json", f"requests/.{ONE}", "ids/stray"]
    for place in places:
        (spool.root / place).write_bytes(place.encode())
    repaired(spool)
    assert aside(spool) == {place: place.encode() for place in places}


@pytest.mark.parametrize("nulib", ["../../outside", "{outside}"])
def test_no_mode_outside_the_spool_is_changed(spool: Spool, tmp_path: Path, nulib: str) -> None:
    outside = tmp_path / "outside"
    (outside / "entries").mkdir(parents=True)
    for path in (outside, outside / "entries"):
        path.chmod(0o777)
    plan = spool.workflows / ONE / "plan.json"
    plan.write_bytes(plan.read_bytes().replace(NULIB.encode(), nulib.format(outside=outside).encode()))
    repair(spool.root)
    assert [path.stat().st_mode & 0o777 for path in (outside, outside / "entries")] == [0o777] * 2


def test_no_mode_behind_a_link_is_changed(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "outside" / "entries").mkdir(parents=True)
    (tmp_path / "outside" / "entries").chmod(0o777)
    (spool.nulib / NULIB).rename(tmp_path / "was")
    (spool.nulib / NULIB).symlink_to(tmp_path / "outside")
    repair(spool.root)
    assert (tmp_path / "outside" / "entries").stat().st_mode & 0o777 == 0o777


def test_folders_that_are_open_are_closed(spool: Spool) -> None:
    for place in ("incoming", f"workflows/{ONE}/logs", f"nulib/{NULIB}/entries"):
        (spool.root / place).chmod(0o777)
    repaired(spool)
