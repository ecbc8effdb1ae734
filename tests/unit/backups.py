"""A spool to be backed up, and what is made of a backup."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from provisioning.core.catalogue import Operation
from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, Plan, WorkflowCheckpoint
from provisioning.storage import files, reading
from provisioning.storage.backup import back_up
from provisioning.storage.checkpoint import WorkflowFolder, encode
from provisioning.storage.naming import StrPath
from provisioning.storage.restore import restore
from provisioning.storage.spool import Spool
from tests.simulation.values import EPOCH, NULIB, checkpoint, graph, record, submission

ONE, TWO = (f"01kc000000000000000000000{number}" for number in (1, 2))
EMPTY = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
"""SHA-256 of the manifest `{}`."""


def spool_under_way(root: Path) -> Spool:
    """One workflow under way, with `a` done and `b` running; one queued."""
    made = Spool.create(root)
    for workflow_id, asked in ((ONE, None), (TWO, "nightly")):
        made.submit(b"{}", "json", submission(workflow_id, id=asked, digest=EMPTY))
    folder = made.claim(ONE)
    folder.prepare()
    operations = {"selftest.noop": Operation("selftest.noop", "noop", "", "", (), None)}
    folder.save_plan(Plan(FORMAT, ONE, graph(["a:", "b: a"]), operations, NULIB))
    folder.save_workflow(WorkflowCheckpoint(FORMAT, ONE, WorkflowState.RUNNING, "alice", EPOCH, "boot-1"))
    finish(made, folder, "a", 1)
    folder.save_task(checkpoint("b", TaskState.RUNNING, None))
    files.append(folder.log_path("a", 1), b"said")
    folder.append_event({"event": "x"})
    tree = {"tree/a.nu": b"", "entries/selftest.noop.nu": b"", "catalogue.json": b"{}"}
    files.publish_tree(tree, made.nulib / NULIB, made.scratch)
    return made


def finish(spool: Spool, folder: WorkflowFolder, task_id: str, number: int) -> None:
    """The attempt succeeds."""
    outcome = msgspec.structs.replace(record(task_id, Outcome.SUCCEEDED, number), workflow_id=folder.workflow_id)
    files.write_once(folder.outcome_path(task_id, number), encode(outcome), scratch=spool.scratch)
    folder.save_task(checkpoint(task_id, TaskState.SUCCEEDED, Outcome.SUCCEEDED))


def packed(spool: Spool) -> bytes:
    out = io.BytesIO()
    back_up(spool, out, compress=False)
    return out.getvalue()


def unpacked(data: bytes, target: Path) -> Spool:
    restore(io.BytesIO(data), "backup.tar", target)
    return Spool.open(target)


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def when_read(monkeypatch: pytest.MonkeyPatch, name: str, deed: Callable[[], object]) -> None:
    """Do something once, right before a file of this name is read."""
    read = reading.read_regular
    done: list[Path] = []

    def disturbed(path: StrPath, limit: int) -> bytes:
        if Path(path).name == name and not done:
            done.append(Path(path))
            deed()
        return read(path, limit)

    monkeypatch.setattr(reading, "read_regular", disturbed)
