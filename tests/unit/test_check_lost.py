"""What `spool check` says of a workflow that has lost files: no claim that was cut short looks like it."""

from __future__ import annotations

import pytest

from provisioning.core.workflow import WorkflowCheckpoint
from provisioning.storage.check import check
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import Spool
from tests.unit.backups import ONE


def found(spool: Spool) -> list[tuple[str, str]]:
    return [(problem.code, problem.file) for problem in check(spool.root)]


def test_a_plan_is_missed_where_the_checkpoint_is_lost_too(under_way: Spool) -> None:
    """What was started says that there was one: it is no claim that its claimer did not complete."""
    folder = under_way.workflows / ONE
    for name in ("plan.json", "workflow.json"):
        (folder / name).unlink()
    assert found(under_way) == [("no-plan", str(folder / "plan.json"))]


def test_a_checkpoint_is_missed_where_no_task_can_be_read(under_way: Spool) -> None:
    folder = under_way.workflows / ONE
    (folder / "workflow.json").unlink()
    for name in ("a", "b"):
        (folder / f"tasks/{name}.json").write_bytes(b"{")
    assert ("no-checkpoint", str(folder / "workflow.json")) in found(under_way)


def test_a_claim_that_was_cut_short_has_lost_nothing(under_way: Spool) -> None:
    folder = under_way.workflows / ONE
    for path in [folder / "plan.json", folder / "workflow.json", *folder.glob("*/*")]:
        path.unlink()
    assert found(under_way) == []


def test_what_is_wrong_for_a_moment_is_not_reported(under_way: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[WorkflowFolder] = []
    look = WorkflowFolder.workflow

    def looking(folder: WorkflowFolder) -> WorkflowCheckpoint | None:
        looks.append(folder)
        if len(looks) == 2:
            (under_way.workflows / ONE / "stray").unlink()
        return look(folder)

    (under_way.workflows / ONE / "stray").write_bytes(b"")
    monkeypatch.setattr(WorkflowFolder, "workflow", looking)
    assert check(under_way.root) == []
