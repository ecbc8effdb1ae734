"""A used spool, damaged at random: check names it, repair deletes nothing, and what can be worked is worked.

A change that leaves a file what it must be, with other content, cannot be seen: bytes are changed so that no text of
ours has them. `PROVISIONING_SEED` repeats one case.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from provisioning.clock import boot_id, new_ulid
from provisioning.core.states import ENDED_WORKFLOWS, TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, Request, TaskCheckpoint
from provisioning.storage.check import check
from provisioning.storage.repair import repair
from provisioning.storage.spool import Spool
from tests.installation import Installation

pytestmark = pytest.mark.nu

SEEDS = [int(os.environ["PROVISIONING_SEED"])] if "PROVISIONING_SEED" in os.environ else range(120)
DRAINED = [int(os.environ["PROVISIONING_SEED"])] if "PROVISIONING_SEED" in os.environ else range(16)


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def changed(path: Path) -> None:
    data = bytearray(path.read_bytes() or b"x")
    data[len(data) // 2] ^= 0x80
    path.write_bytes(data)


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": half,
    "changed": changed,
    "empty": lambda path: os.truncate(path, 0),
    "removed": os.unlink,
    "a folder": instead(os.mkdir),
    "a FIFO": instead(os.mkfifo),
    "a link": instead(lambda path: path.symlink_to("/etc/passwd")),
    "a dangling link": instead(lambda path: path.symlink_to("nowhere")),
}


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One workflow of each kind: succeeded, failed, cut off, paused, queued with an `id`; and a request."""
    site = Installation(tmp_path_factory.mktemp("used"), tmp_path_factory.mktemp("cache"))
    site.run([site.mark("a1"), site.mark("a2", depends_on=["a1"])], id="nightly")
    failing = {"id": "f", "operation": "selftest.fail", "params": {"code": "x::y", "message": "no"}}
    site.run([failing, site.mark("b1", depends_on=["f"])])
    cut = site.run([site.mark("c1"), site.mark("c2", depends_on=["c1"]), site.mark("c3", depends_on=["c2"])])
    cut_off(site, cut, "c2", "c3")
    paused = site.run([site.mark("d1"), site.mark("d2", depends_on=["d1"])])
    cut_off(site, paused, "d2", None)
    workflow = site.workflow(paused)
    site.spool.workflow(paused).save_workflow(msgspec.structs.replace(workflow, state=WorkflowState.PAUSED))
    site.spool.request(Request(FORMAT, new_ulid(), paused, "pause", "tester", workflow.submitted_at))
    site.submit([site.mark("e1")], id="weekly")
    assert check(site.spool.root) == []
    site.spool.close()
    yield site
    site.close()


def cut_off(site: Installation, workflow_id: str, task_id: str, after: str | None) -> None:
    """As if everybody had been killed right after that task's effect; what comes after it has not happened."""
    folder = site.spool.workflow(workflow_id)
    attempt = msgspec.structs.replace(
        folder.task(task_id).attempts[0],
        boot_id=boot_id(),
        worker=new_ulid(),
        ended_at=None,
        outcome=None,
        exit_code=None,
    )
    folder.save_task(TaskCheckpoint(FORMAT, task_id, TaskState.RUNNING, (attempt,)))
    folder.outcome_path(task_id, 1).unlink()
    for path in [] if after is None else folder.path.glob(f"*/{after}.*"):
        path.unlink()
    if after is not None:
        marks = [line for line in site.mark_lines() if line != after]
        site.marks.write_text("".join(f"{line}\n" for line in marks))
    workflow = msgspec.structs.replace(site.workflow(workflow_id), state=WorkflowState.RUNNING, ended_at=None)
    folder.save_workflow(workflow)


def victims(root: Path) -> list[Path]:
    """The files that make the state, in a fixed order."""
    return sorted(
        path
        for name in ("incoming", "workflows", "requests", "ids", "nulib")
        for path in (root / name).rglob("*")
        if path.is_file() and path.name != "lock" and (name != "nulib" or "entries" in path.parts)
    )


def contents(root: Path) -> Counter[str]:
    """How often each content of a file is in the spool, wherever it is."""
    paths = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and path.stat().st_size)
    return Counter(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)


def kinds(root: Path) -> Counter[str]:
    """How many links and FIFOs there are."""
    paths = [path for path in root.rglob("*") if path.is_symlink() or path.is_fifo()]
    return Counter("link" if path.is_symlink() else "fifo" for path in paths)


def damage(root: Path, seed: int, times: int) -> list[tuple[Path, str]]:
    rng = random.Random(seed)
    done = []
    for path in rng.sample(victims(root), times):
        kind = rng.choice(sorted(DAMAGES))
        DAMAGES[kind](path)
        done.append((path, kind))
    return done


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_damaged_is_named_and_nothing_of_it_is_deleted(
    used: Installation, tmp_path: Path, seed: int
) -> None:
    root = tmp_path / "spool"
    shutil.copytree(used.spool.root, root)
    done = damage(root, seed, 1 + seed % 4)
    found = check(root)
    before, others = contents(root), kinds(root)
    account = repair(root)
    after = contents(root)
    assert not before - after, (done, account)
    assert not others - kinds(root), (done, account)
    left = {(one.code, one.file) for one in account if not one.done}
    rest = {(problem.code, problem.file) for problem in check(root)}
    assert rest <= left | {("no-outcome", file) for _, file in rest}, (done, [str(p) for p in found], account)
    named = {problem.file for problem in found}
    for path, kind in done:
        if kind == "removed" and path.name not in ("workflow.json", "plan.json", "submission.json"):
            continue  # a request or checkpoint that never was; an outcome whose absence its task's checkpoint tells
        if path.suffix == ".json" and "nulib" not in path.parts:
            place = root.joinpath(*path.relative_to(root).parts[:2])  # its workflow, where one more thing is wrong
            hidden = len(done) > 1 and any(file.startswith(str(place)) for file in named)
            assert str(path) in named or hidden, (done, found)
    assert [one for one in repair(root) if one.done] == [], "a second repair has nothing to do"


@pytest.mark.parametrize("seed", DRAINED)
def test_what_can_be_worked_is_worked_and_nothing_twice(used: Installation, tmp_path: Path, seed: int) -> None:
    shutil.copytree(used.spool.root, tmp_path / "spool")
    (path, kind) = damage(tmp_path / "spool", seed, 1)[0]
    account = repair(tmp_path / "spool")
    if path.name.endswith(".log") and kind == "removed":
        return  # of an attempt under way it says that the worker never began: a state like any other
    copy = Installation(tmp_path, used.root / "cache")
    marks = used.mark_lines()
    try:
        copy.drain(max_wait=8)
        lines = used.mark_lines()[len(marks) :]
        used.marks.write_text("".join(f"{line}\n" for line in marks))
        assert not set(lines) & set(marks), (path, kind, account, copy.said())
        assert len(lines) == len(set(lines))
        harmed = {part for part in path.parts if part in copy.spool.workflow_ids()} | set(path.name.split("."))
        for workflow_id in Spool.open(used.spool.root).workflow_ids():
            if workflow_id in harmed or "nulib" in path.parts or workflow_id not in copy.spool.workflow_ids():
                continue
            state = copy.state(workflow_id)
            waits = any(task.held for task in copy.folder(workflow_id).tasks())
            assert state in ENDED_WORKFLOWS or waits, (path, kind, copy.said())
        if not account:
            assert check(copy.spool.root) == []
    finally:
        copy.close()


def test_a_workflow_that_somebody_holds_is_left(used: Installation, tmp_path: Path) -> None:
    shutil.copytree(used.spool.root, tmp_path / "spool")
    spool = Spool.open(tmp_path / "spool")
    workflow_id = spool.claimed_ids()[0]
    path = spool.workflows / workflow_id / "tasks" / "a1.json"
    path.write_bytes(b"{")
    lock = spool.lock(workflow_id)
    assert lock is not None
    (one,) = repair(spool.root)
    assert (one.done, "stop its holder" in one.text, path.read_bytes()) == (False, True, b"{")
    lock.release()
    (one,) = repair(spool.root)
    assert one.done
    assert spool.workflow(workflow_id).task("a1").state is TaskState.SUCCEEDED


def test_files_of_a_newer_version_are_left_with_their_workflow(used: Installation, tmp_path: Path) -> None:
    shutil.copytree(used.spool.root, tmp_path / "spool")
    spool = Spool.open(tmp_path / "spool")
    folder = spool.workflows / spool.claimed_ids()[0]
    newer = folder / "tasks" / "a1.json"
    newer.write_bytes(newer.read_bytes().replace(b'"format":1', b'"format":2'))
    (folder / "stray").write_bytes(b"x")
    before = contents(spool.root)
    assert not any(one.done for one in repair(spool.root))
    assert contents(spool.root) == before
    assert (folder / "stray").exists()
