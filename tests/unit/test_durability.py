"""What is on the disk, in which order, and what a failed sync leaves to be seen."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, WorkflowCheckpoint
from provisioning.errors import SpoolUnusable
from provisioning.storage import files
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import Spool
from tests.simulation.disk import Disk
from tests.simulation.faults import failing, names
from tests.simulation.values import EPOCH, WORKFLOW_ID, checkpoint, submission

BROKEN = OSError(errno.EIO, "broken")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool.create(tmp_path / "spool")
    _ = made.scratch  # or the making of it would be among what the tests note
    yield made
    made.close()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Syncs and renames in their order, each with the name that it is about."""
    noted: list[str] = []
    sync, rename = os.fsync, os.rename

    def note_sync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        noted.append(f"sync {os.path.basename(path)}/" if os.path.isdir(path) else "sync bytes")
        sync(descriptor)

    def note_rename(source: Any, target: Any) -> None:
        noted.append(f"rename {os.path.basename(target)}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note_rename)
    return noted


def test_a_checkpoint_that_no_outcome_tells_has_its_bytes_on_the_disk_before_its_name(
    spool: Spool, said: list[str]
) -> None:
    folder = WorkflowFolder(spool.workflows / WORKFLOW_ID, spool.scratch)
    files.make_dir(folder.path)
    folder.prepare()
    assert said == [f"sync {WORKFLOW_ID}/"]
    said.clear()
    told = [
        checkpoint("a", TaskState.RUNNING, None),
        checkpoint("a", TaskState.SUCCEEDED, Outcome.SUCCEEDED),
    ]
    for each in told:
        folder.save_task(each)
    assert said == ["rename a.json", "rename a.json"]
    said.clear()
    others = [
        checkpoint("a", TaskState.RUNNING, Outcome.FAILED, None),
        checkpoint("a", TaskState.FAILED, Outcome.FAILED),
        checkpoint("a", TaskState.PENDING, Outcome.INTERRUPTED, held=True),
        checkpoint("a", TaskState.RUNNING, None, probing=True),
        checkpoint("a", TaskState.SUCCEEDED, Outcome.SUCCEEDED, counted_from=2),
    ]
    for each in others:
        folder.save_task(each)
    assert said == ["sync bytes", "rename a.json"] * len(others)
    said.clear()
    folder.save_workflow(WorkflowCheckpoint(FORMAT, WORKFLOW_ID, WorkflowState.RUNNING, "alice", EPOCH, "boot-1"))
    assert said == ["sync bytes", "rename workflow.json"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_move_whose_sync_failed_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    for name in ("from", "to"):
        files.make_dir(tmp_path / name)
    files.write_new(tmp_path / "from/f", b"x", durable=False)
    failing("fsync", BROKEN, monkeypatch, number=number)
    with pytest.raises(SpoolUnusable):
        files.move(tmp_path / "from/f", tmp_path / "to/f")
    assert (names(tmp_path / "from"), names(tmp_path / "to")) == (["f"], [])


def test_a_move_that_failed_says_so_even_where_another_took_the_file_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_new(tmp_path / "f", b"x", durable=False)

    def taken(_descriptor: int) -> None:
        os.unlink(tmp_path / "g")
        raise BROKEN

    monkeypatch.setattr(os, "fsync", taken)
    with pytest.raises(SpoolUnusable, match="Input/output"):
        files.move(tmp_path / "f", tmp_path / "g")


def test_a_submission_that_is_refused_is_not_there(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        failing("fsync", BROKEN, patched, number=4)  # manifest, submission, their folder, then incoming/
        with pytest.raises(SpoolUnusable):
            spool.submit(b"{}", "json", submission())
    assert spool.incoming_ids() == []
    assert spool.submit(b"{}", "json", submission()) == WORKFLOW_ID
    assert spool.incoming_ids() == [WORKFLOW_ID]


def test_write_once_leaves_no_name_whose_sync_failed(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        failing("fsync", BROKEN, patched, number=2)
        with pytest.raises(SpoolUnusable):
            files.write_once(spool.ids / "f", b"x", scratch=spool.scratch)
    assert names(spool.ids) == []
    assert files.write_once(spool.ids / "f", b"x", scratch=spool.scratch)


def test_what_somebody_made_and_may_not_have_synced_is_synced_before_it_counts(spool: Spool, said: list[str]) -> None:
    (spool.ids / "f").write_bytes(b"first")
    (spool.nulib / "tree").mkdir()
    assert not files.write_once(spool.ids / "f", b"second", scratch=spool.scratch)
    assert said[-1] == "sync ids/"
    files.publish_tree({"a": b""}, spool.nulib / "tree", spool.scratch)
    assert said[-1] == "sync nulib/"


def test_a_disk_that_cannot_be_written_is_named_where_a_tree_is_there(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spool.nulib / "tree").mkdir()
    failing("fsync", BROKEN, monkeypatch)
    with pytest.raises(SpoolUnusable, match="tree"):
        files.publish_tree({"a": b""}, spool.nulib / "tree", spool.scratch)


def test_the_modelled_disk_starts_with_what_is_there(spool: Spool) -> None:
    (spool.ids / "f").write_bytes(b"whole")
    Disk(spool.root).cut(random.Random(0))
    assert (spool.ids / "f").read_bytes() == b"whole"
