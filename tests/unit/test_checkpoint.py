"""The files of a workflow: what is written is read again, and what is damaged is named and never overwritten."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from provisioning.clock import boot_id
from provisioning.core.attempts import NOBODY, UNKNOWN_BOOT
from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.core.workflow import (
    FORMAT,
    AppliedRequest,
    Backoff,
    Plan,
    TaskCheckpoint,
    WorkflowCheckpoint,
)
from provisioning.errors import SpoolUnusable
from provisioning.processes import own_identity
from provisioning.storage import files
from provisioning.storage.checkpoint import Damaged, WorkflowFolder, encode
from tests.simulation.values import EPOCH, NULIB, WORKFLOW_ID, checkpoint, graph, record, submission

CHECKPOINT = checkpoint(
    "web.1", TaskState.PENDING, Outcome.FAILED, Outcome.INTERRUPTED, backoff=Backoff("b", 1.5, EPOCH), reason="ü\n"
)
WORKFLOW = WorkflowCheckpoint(
    FORMAT,
    WORKFLOW_ID,
    WorkflowState.RUNNING,
    "alice",
    EPOCH,
    "boot-1",
    holder=own_identity(),
    applied=(AppliedRequest(WORKFLOW_ID, "retry", "bob", EPOCH, ("a",)),),
    counts={"pending": 1},
)
PLAN = Plan(FORMAT, WORKFLOW_ID, graph(["a:", "b: a"]), {}, NULIB)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[WorkflowFolder]:
    (tmp_path / WORKFLOW_ID).mkdir()
    scratch = files.Scratch(tmp_path / "scratch")
    made = WorkflowFolder(tmp_path / WORKFLOW_ID, scratch)
    made.prepare()
    yield made
    scratch.close()


def put(folder: WorkflowFolder, name: str, value: Any) -> Path:
    path = folder.path / name
    path.write_bytes(value if isinstance(value, bytes) else encode(value))
    return path


Read = Callable[[WorkflowFolder], object]
FILES: dict[str, tuple[Any, Read]] = {
    "plan.json": (PLAN, WorkflowFolder.plan),
    "workflow.json": (WORKFLOW, WorkflowFolder.workflow),
    "submission.json": (submission(), WorkflowFolder.submission),
    "tasks/web.1.json": (CHECKPOINT, lambda folder: folder.task("web.1")),
    "outcomes/web.1.2.json": (
        record("web.1", Outcome.FAILED, 2, code="x::y", exit_code=7, result={"a": [1, None, "ü"]}, leftovers=(3, 4)),
        lambda folder: folder.outcome("web.1", 2),
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_written_is_read(folder: WorkflowFolder, name: str) -> None:
    value, read = FILES[name]
    put(folder, name, value)
    assert read(folder) == value


def test_what_is_saved_is_read(folder: WorkflowFolder) -> None:
    folder.save_plan(PLAN)
    folder.save_workflow(WORKFLOW)
    folder.save_task(CHECKPOINT)
    assert (folder.plan(), folder.workflow(), list(folder.tasks())) == (PLAN, WORKFLOW, [CHECKPOINT])


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "zeroes": lambda data: b"\0" * len(data),
    "cut in half": lambda data: data[: len(data) // 2],
    "two of them": lambda data: data + data,
    "not UTF-8": lambda data: data.replace(b'"', b'"\xff', 1),
    "another thing": lambda _: b'{"name": "a manifest"}',
    "a list": lambda _: b"[]",
    "null": lambda _: b"null",
    "deep": lambda _: b"[" * 200_000,
    "no format": lambda data: data.replace(b'"format":1,', b""),
    "format 0": lambda data: data.replace(b'"format":1', b'"format":0'),
    "text as format": lambda data: data.replace(b'"format":1', b'"format":"1"'),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_named_and_left_as_it_is(folder: WorkflowFolder, name: str, damage: str) -> None:
    value, read = FILES[name]
    data = DAMAGES[damage](encode(value))
    path = put(folder, name, data)
    with pytest.raises(Damaged) as raised:
        read(folder)
    assert raised.value.path == path
    assert str(path) in str(raised.value)
    assert raised.value.hint
    assert path.read_bytes() == data


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_is_damage(folder: WorkflowFolder, name: str) -> None:
    value, read = FILES[name]
    whole = encode(value).rstrip()
    for end in range(len(whole)):
        put(folder, name, whole[:end])
        with pytest.raises(Damaged):
            read(folder)


@pytest.mark.parametrize("outcome", [None, Outcome.SUCCEEDED, Outcome.FAILED])
def test_of_a_first_attempt_whose_checkpoint_a_power_cut_has_taken_the_outcome_tells(
    folder: WorkflowFolder, outcome: Outcome | None
) -> None:
    put(folder, "workflow.json", WORKFLOW)
    whole = encode(checkpoint("a", TaskState.RUNNING, None)).rstrip()
    if outcome is not None:
        put(folder, "outcomes/a.1.json", record("a", outcome))
    for taken in (*(whole[:end] for end in range(len(whole))), b"\0" * len(whole)):
        put(folder, "tasks/a.json", taken)
        found = folder.task("a")
        assert found.state is (TaskState.SUCCEEDED if outcome is Outcome.SUCCEEDED else TaskState.RUNNING)
        assert [(a.number, a.outcome, a.worker) for a in found.attempts] == [
            (1, outcome if outcome is Outcome.SUCCEEDED else None, NOBODY)
        ]
        assert found.attempts[0].boot_id == UNKNOWN_BOOT, "it cannot be under way: recovery finds out about it"
    folder.save_workflow(msgspec.structs.replace(WORKFLOW, boot_id=boot_id()))
    with pytest.raises(Damaged):
        folder.task("a")  # the host has not gone down since
    folder.save_workflow(WORKFLOW)
    folder.outcome_path("a", 2).touch()
    with pytest.raises(Damaged):
        folder.task("a")


@pytest.mark.parametrize("name", FILES)
def test_every_byte_that_is_no_text_is_damage(folder: WorkflowFolder, name: str) -> None:
    value, read = FILES[name]
    whole = encode(value).rstrip()
    for place in range(len(whole)):
        put(folder, name, whole[:place] + bytes([whole[place] ^ 0x80]) + whole[place + 1 :])
        with pytest.raises(Damaged):
            read(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("also", [b"", b'"state":"a state of next year",'])
def test_a_newer_format_is_named_as_such(folder: WorkflowFolder, name: str, also: bytes) -> None:
    value, read = FILES[name]
    data = encode(value).replace(b'"format":1,', b'"format":2,"new":[],' + also)
    put(folder, name, data)
    with pytest.raises(Damaged, match="its format is 2, this version reads 1"):
        read(folder)


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_is_damage(folder: WorkflowFolder, name: str, tmp_path: Path) -> None:
    value, read = FILES[name]
    path = folder.path / name
    (tmp_path / "other").write_bytes(encode(value))
    makes: list[Callable[[], None]] = [lambda: path.symlink_to(tmp_path / "other"), lambda: os.mkfifo(path), path.mkdir]
    for make in makes:
        make()
        with pytest.raises(Damaged):
            read(folder)
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize("name", FILES)
def test_what_the_system_refuses_is_no_damage(
    folder: WorkflowFolder, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    value, read = FILES[name]
    put(folder, name, value)

    def fail(*_args: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(SpoolUnusable, match=os.strerror(number)) as raised:
        read(folder)
    assert not isinstance(raised.value, Damaged)


@pytest.mark.parametrize("name", ["tasks", "outcomes", "logs"])
def test_a_file_in_place_of_a_folder_is_damage(folder: WorkflowFolder, name: str) -> None:
    (folder.path / name).rmdir()
    (folder.path / name).write_bytes(b"")
    with pytest.raises(Damaged):
        folder.prepare()
    with pytest.raises(Damaged):
        folder.task("a") if name == "tasks" else folder.outcome("a", 1) if name == "outcomes" else folder.prepare()
    if name == "tasks":
        with pytest.raises(Damaged):
            list(folder.tasks())


def test_a_link_is_no_manifest(folder: WorkflowFolder) -> None:
    (folder.path / "manifest.toml").symlink_to("elsewhere")
    with pytest.raises(Damaged):
        folder.manifest()


def test_what_is_in_the_way_of_a_save_is_damage(folder: WorkflowFolder) -> None:
    (folder.path / "tasks" / "web.1.json").mkdir()
    with pytest.raises(Damaged):
        folder.save_task(CHECKPOINT)


def test_what_is_missing(folder: WorkflowFolder) -> None:
    assert (folder.plan(), folder.workflow(), folder.outcome("a", 1), list(folder.tasks())) == (None, None, None, [])
    assert folder.task("a") == TaskCheckpoint(FORMAT, "a")
    with pytest.raises(Damaged, match="there is no manifest"):
        folder.manifest()


def test_a_file_under_another_name_is_damage(folder: WorkflowFolder) -> None:
    put(folder, "tasks/b.json", CHECKPOINT)
    with pytest.raises(Damaged, match=r"checkpoint of task 'web\.1'"):
        folder.task("b")
    for name in ("outcomes/b.1.json", "outcomes/a.2.json"):
        put(folder, name, record("a", Outcome.SUCCEEDED, 1))
    for task_id, number in (("b", 1), ("a", 2)):
        with pytest.raises(Damaged, match="outcome of another attempt"):
            folder.outcome(task_id, number)
    other = msgspec.structs.replace(record("a", Outcome.SUCCEEDED, 1), workflow_id="another")
    put(folder, "outcomes/a.1.json", other)
    with pytest.raises(Damaged):
        folder.outcome("a", 1)


def test_a_task_that_runs_has_an_attempt(folder: WorkflowFolder) -> None:
    put(folder, "tasks/a.json", checkpoint("a", TaskState.RUNNING))
    with pytest.raises(Damaged, match="no attempt"):
        list(folder.tasks())


def test_temporary_files_and_others_are_no_checkpoints(folder: WorkflowFolder) -> None:
    for name in (".a.json.01", "a.json.tmp", ".hidden.json"):
        put(folder, f"tasks/{name}", b"rest of a crash")
    assert list(folder.tasks()) == []


def test_a_save_that_fails_leaves_the_old_one(folder: WorkflowFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.save_task(CHECKPOINT)

    def fail(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(Exception, match="No space left"):
        folder.save_task(msgspec.structs.replace(CHECKPOINT, reason="new"))
    assert folder.task("web.1") == CHECKPOINT


@pytest.mark.parametrize(
    ("kind", "syncs"),
    [
        ("task", 1),
        ("task starting, not idempotent", 2),
        ("task starting, after a crash of the host", 2),
        ("task starting on a cluster", 2),
    ],
)
def test_a_save_is_as_durable_as_its_kind_says(
    folder: WorkflowFolder, monkeypatch: pytest.MonkeyPatch, kind: str, syncs: int
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)
    folder.save_task(CHECKPOINT, kind)
    assert len(calls) == syncs


def test_the_result_is_that_of_the_attempt_that_succeeded(folder: WorkflowFolder) -> None:
    put(folder, "outcomes/a.2.json", record("a", Outcome.SUCCEEDED, 2, result={"ip": "192.0.2.1"}))
    assert folder.result(checkpoint("a", TaskState.SUCCEEDED, Outcome.FAILED, Outcome.SUCCEEDED)) == {"ip": "192.0.2.1"}
    assert folder.result(checkpoint("a", TaskState.FAILED, Outcome.FAILED, Outcome.FAILED)) is None
    assert folder.result(checkpoint("b", TaskState.SUCCEEDED, Outcome.SUCCEEDED)) is None
    assert folder.result(TaskCheckpoint(FORMAT, "a")) is None


def test_events_outlive_a_torn_line(folder: WorkflowFolder) -> None:
    assert list(folder.events()) == []
    folder.append_event({"event": "task", "n": 1})
    files.append(folder.path / "events.jsonl", b'{"event": "ta\n\xff\n[1]\n')
    folder.append_event({"event": "task", "n": 2})
    assert [event["n"] for event in folder.events()] == [1, 2]


def test_events_are_no_authority(folder: WorkflowFolder) -> None:
    (folder.path / "events.jsonl").mkdir()
    folder.append_event({"event": "lost"})
