"""The room of an attempt: it is given back however the attempt ends, and a lost outcome is never called published."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioning.core.states import TaskState
from provisioning.core.workflow import FORMAT, Attempt, OutcomeRecord, TaskCheckpoint
from provisioning.errors import SpoolUnusable
from provisioning.execution.attempt import Attempts, InSpool
from provisioning.execution.executor import AttemptRequest, Key
from provisioning.execution.running import Running
from provisioning.storage import files, reading
from provisioning.storage.checkpoint import WorkflowFolder
from tests.simulation.values import EPOCH, WORKFLOW_ID

REQUEST = AttemptRequest(
    key=Key(WORKFLOW_ID, "t", 1),
    argv=("/nonexistent/nu",),  # a process that cannot be started: the attempt fails, and that is its outcome
    environment={},
    task_environment={},
    params={},
    result_schema=None,
    timeout_seconds=None,
    grace_seconds=0.1,
    log_bytes=1000,
    result_bytes=1000,
)


class Silent:
    """A worker that hears nothing."""

    lag_seconds = 0.0

    descriptor = -1

    def cancelled(self) -> bool:
        return False


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[files.Scratch]:
    made = files.Scratch(tmp_path / "01kc0000000000000000000009")
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path, scratch: files.Scratch) -> WorkflowFolder:
    """A workflow whose task t is starting in this worker."""
    path = tmp_path / WORKFLOW_ID
    path.mkdir()
    made = WorkflowFolder(path, scratch)
    made.prepare()
    starting = Attempt(1, EPOCH, "boot-1", scratch.path.name)
    made.save_task(TaskCheckpoint(FORMAT, "t", TaskState.RUNNING, (starting,)))
    return made


def made_attempt(folder: WorkflowFolder, scratch: files.Scratch) -> OutcomeRecord | None:
    """What a worker that makes this one attempt says of it."""
    attempts = Attempts(scratch, Silent())
    try:
        return attempts.run(REQUEST, InSpool(REQUEST, folder, scratch), lambda: None)
    finally:
        attempts.close()


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_an_outcome_is_published_and_nothing_else_is_left(folder: WorkflowFolder, scratch: files.Scratch) -> None:
    before = open_descriptors()
    assert made_attempt(folder, scratch) is not None
    published = folder.outcome("t", 1)
    assert published is not None
    assert published.outcome == "failed"
    assert os.listdir(scratch.path) == []
    assert open_descriptors() == before


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_an_outcome_that_the_disk_loses_leaves_neither_room_nor_descriptor(
    folder: WorkflowFolder, scratch: files.Scratch, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = open_descriptors()

    def refuse(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(SpoolUnusable, match=os.strerror(number)):
            made_attempt(folder, scratch)
    assert folder.outcome("t", 1) is None
    assert os.listdir(scratch.path) == []
    assert open_descriptors() == before
    assert not reading.is_locked(folder.log_path("t", 1)), "recovery finds that it was interrupted"


def test_an_attempt_that_ends_in_an_error_gives_its_room_back(
    folder: WorkflowFolder, scratch: files.Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_descriptors()

    def fail(_self: Running) -> None:
        assert [name for name in os.listdir(scratch.path) if name.endswith(".spare")], "room was made before"
        raise OSError(errno.ENFILE, "Too many open files in system")

    monkeypatch.setattr(Running, "record", fail)
    with pytest.raises(OSError, match="Too many open files"):
        made_attempt(folder, scratch)
    assert os.listdir(scratch.path) == []
    assert open_descriptors() == before
