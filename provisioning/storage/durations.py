"""How long tasks took in earlier workflows of a name: `durations/<name>.json`, a view. It decides an order, no more."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from provisioning.core.identifiers import OperationName, TaskId
from provisioning.core.workflow import FORMAT, Task, Workflow
from provisioning.errors import SpoolUnusable
from provisioning.storage import files, reading
from provisioning.storage.checkpoint import encode, load

KEPT = 1000
"""Of so many names at most; then the one that was written longest ago goes."""
MAX_BYTES = 32 << 20
NEWS = 0.5
"""The weight of what was measured last against all before."""


class Durations(msgspec.Struct, frozen=True):
    """What was learnt, in seconds."""

    format: int
    tasks: dict[TaskId, float]
    """Of the tasks of the latest workflow."""
    operations: dict[OperationName, float]
    """Of a task that has not been before: the mean of those with the same operation."""


def durations_path(root: Path, name: str) -> Path:
    """The file for workflows of this name, which a manifest may have: no path leads out of it."""
    return root / "durations" / f"{name}.json"


def load_durations(path: Path) -> Durations:
    """What is in the file."""
    return load(path, Durations, MAX_BYTES)


def _known(root: Path, name: str) -> Durations:
    with contextlib.suppress(FileNotFoundError, SpoolUnusable):
        return load_durations(durations_path(root, name))
    return Durations(FORMAT, {}, {})


def with_expected(root: Path, workflow: Workflow) -> Workflow:
    """The workflow with the durations of earlier ones of its name, where its manifest says none."""
    if len(workflow.tasks) < 2:  # nobody has to wait for anybody
        return workflow
    known = _known(root, workflow.name)

    def expected(task: Task) -> Task:
        learnt = known.tasks.get(task.id, known.operations.get(task.operation))
        if task.expected_seconds is not None or learnt is None:
            return task
        return msgspec.structs.replace(task, expected_seconds=learnt)

    return msgspec.structs.replace(workflow, tasks=tuple(map(expected, workflow.tasks)))


def learn(root: Path, workflow: Workflow, took: Mapping[str, float], scratch: files.Scratch | None = None) -> None:
    """Remember how long the tasks of a workflow took that has ended. What cannot be written is not remembered."""
    if len(workflow.tasks) < 2 or not took:
        return
    known = _known(root, workflow.name)
    learnt = {}
    by_operation: dict[str, list[float]] = {}
    for task in workflow.tasks:
        before, seconds = known.tasks.get(task.id), took.get(task.id)
        if seconds is not None:
            by_operation.setdefault(task.operation, []).append(seconds)
            learnt[task.id] = round(seconds if before is None else before + NEWS * (seconds - before), 3)
        elif before is not None:
            learnt[task.id] = before
    means = {name: round(sum(each) / len(each), 3) for name, each in by_operation.items()}
    path = durations_path(root, workflow.name)
    with contextlib.suppress(SpoolUnusable, OSError):
        files.make_dir(path.parent)
        data = encode(Durations(FORMAT, learnt, known.operations | means))
        files.write_atomic(path, data, durable=files.DURABLE["view"], whole=True, scratch=scratch)
        _forget_beyond(path.parent)


def _forget_beyond(folder: Path) -> None:
    names = reading.list_names(folder)
    if len(names) > KEPT:
        oldest = min(names, key=lambda name: (folder / name).stat().st_mtime_ns)
        files.remove(folder / oldest)
