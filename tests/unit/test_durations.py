"""What is learnt of how long tasks take, and whom it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioning.core.workflow import Task, Workflow
from provisioning.storage import durations
from provisioning.storage.durations import durations_path, learn, load_durations, with_expected


def workflow(*names: str, name: str = "nightly", **expected: float) -> Workflow:
    tasks = (Task(each, f"work.{each[0]}", expected_seconds=expected.get(each)) for each in names)
    return Workflow(name, tuple(tasks))


def told(root: Path, asked: Workflow) -> list[float | None]:
    return [task.expected_seconds for task in with_expected(root, asked).tasks]


def test_what_a_task_took_is_expected_of_it_next_time(tmp_path: Path) -> None:
    assert told(tmp_path, workflow("a1", "b1")) == [None, None]
    learn(tmp_path, workflow("a1", "b1"), {"a1": 2.0, "b1": 5.0})
    assert told(tmp_path, workflow("a1", "b1")) == [2.0, 5.0]
    assert told(tmp_path, workflow("a1", "b1", name="other")) == [None, None]


def test_what_the_manifest_says_counts_first(tmp_path: Path) -> None:
    learn(tmp_path, workflow("a1", "b1"), {"a1": 2.0, "b1": 5.0})
    assert told(tmp_path, workflow("a1", "b1", b1=60.0)) == [2.0, 60.0]


def test_a_new_task_is_expected_to_take_what_its_operation_takes(tmp_path: Path) -> None:
    learn(tmp_path, workflow("a1", "a2", "b1"), {"a1": 2.0, "a2": 4.0, "b1": 5.0})
    assert told(tmp_path, workflow("a9", "c1")) == [3.0, None]


def test_what_was_measured_last_weighs_half_and_what_failed_leaves_what_was_known(tmp_path: Path) -> None:
    learn(tmp_path, workflow("a1", "b1"), {"a1": 2.0, "b1": 5.0})
    learn(tmp_path, workflow("a1", "b1"), {"a1": 4.0})
    assert told(tmp_path, workflow("a1", "b1")) == [3.0, 5.0]


def test_tasks_that_are_no_longer_there_are_forgotten(tmp_path: Path) -> None:
    learn(tmp_path, workflow("a1", "b1"), {"a1": 2.0, "b1": 5.0})
    learn(tmp_path, workflow("a1", "c1"), {"a1": 2.0, "c1": 1.0})
    assert set(load_durations(durations_path(tmp_path, "nightly")).tasks) == {"a1", "c1"}


def test_one_task_alone_teaches_nothing(tmp_path: Path) -> None:
    learn(tmp_path, workflow("a1"), {"a1": 2.0})
    assert not (tmp_path / "durations").exists()


def test_a_file_that_cannot_be_read_counts_for_nothing_and_is_written_anew(tmp_path: Path) -> None:
    path = durations_path(tmp_path, "nightly")
    path.parent.mkdir()
    path.write_text("?")
    assert told(tmp_path, workflow("a1", "b1")) == [None, None]
    learn(tmp_path, workflow("a1", "b1"), {"a1": 2.0})
    assert told(tmp_path, workflow("a1", "b1")) == [2.0, None]


def test_a_disk_that_refuses_it_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "durations").write_text("no folder")
    learn(tmp_path, workflow("a1", "b1"), {"a1": 2.0})
    assert told(tmp_path, workflow("a1", "b1")) == [None, None]


def test_only_so_many_names_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durations, "KEPT", 3)
    for i in range(5):
        learn(tmp_path, workflow("a1", "b1", name=f"w{i}"), {"a1": 2.0})
    assert len(list((tmp_path / "durations").iterdir())) == 3
