"""Claimed workflows at rest cost one look at a name, however many tasks they have."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from provisioning.core.states import WorkflowState
from provisioning.core.workflow import FORMAT, TaskCheckpoint, WorkflowCheckpoint
from provisioning.orchestrator import claimed
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import Spool

ID = "01kc0000000000000000000000"


@pytest.mark.parametrize("state", [WorkflowState.PAUSED, WorkflowState.SUCCEEDED])
def test_a_workflow_at_rest_is_read_once_until_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: WorkflowState
) -> None:
    monkeypatch.setattr(claimed, "RACY_NS", -1)
    spool = Spool.create(tmp_path / "spool")
    (spool.workflows / ID).mkdir()
    folder = spool.workflow(ID)
    folder.prepare()
    checkpoint = WorkflowCheckpoint(FORMAT, ID, state, "alice", datetime(2026, 1, 1, tzinfo=UTC), "boot")
    folder.save_workflow(checkpoint)
    read: list[Any] = []
    real = WorkflowFolder.workflow

    def counted(self: WorkflowFolder) -> WorkflowCheckpoint | None:
        read.append("workflow")
        return real(self)

    def tasks(self: WorkflowFolder) -> Iterator[TaskCheckpoint]:
        read.append("tasks")
        return iter(())

    monkeypatch.setattr(WorkflowFolder, "workflow", counted)
    monkeypatch.setattr(WorkflowFolder, "tasks", tasks)
    looks = claimed.Claimed(spool)
    assert not looks.wants_holder(ID)
    once = list(read)
    assert not looks.wants_holder(ID)
    assert read == once
    folder.save_workflow(msgspec.structs.replace(checkpoint, state=WorkflowState.RUNNING))
    assert looks.wants_holder(ID)
