"""`waiting.json` of a workflow: why attempts that are with Slurm do not run yet. A view, which may be lost."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from provisioning.core.identifiers import TaskId
from provisioning.core.workflow import FORMAT
from provisioning.errors import SpoolUnusable
from provisioning.storage import files
from provisioning.storage.checkpoint import encode, load


class Waiting(msgspec.Struct, frozen=True):
    """What each task's attempt waits for, in words for people."""

    format: int
    tasks: dict[TaskId, str]


class WaitingViews:
    """The views of all workflows, by one process: a file is replaced only where what it says has changed."""

    def __init__(self, workflows: Path) -> None:
        self._workflows = workflows
        self._shown: dict[str, dict[str, str]] = {}

    def take_over(self, workflow_id: str) -> None:
        """Of a workflow that another process may have shown: what its view says is over unless it is said again."""
        if workflow_id not in self._shown:
            self._shown[workflow_id] = waiting_of(self._workflows / workflow_id)

    def show(self, waiting: dict[str, dict[str, str]]) -> None:
        """Have the views say this, by workflow and task; of a workflow in which nothing waits there is none."""
        for workflow_id in {**waiting, **self._shown}:
            if (said := waiting.get(workflow_id, {})) != self._shown.get(workflow_id, {}):
                _save(self._workflows / workflow_id, said)
        self._shown = waiting


def _save(folder: Path, tasks: dict[str, str]) -> None:
    path = folder / "waiting.json"
    with contextlib.suppress(SpoolUnusable):
        if not tasks:
            files.remove(path)
        elif os.path.isdir(folder):
            files.write_atomic(path, encode(Waiting(FORMAT, tasks)), durable=files.DURABLE["view"])


def waiting_of(folder: Path) -> dict[str, str]:
    """What is known to wait, by task; nothing where that cannot be read."""
    try:
        return load(folder / "waiting.json", Waiting).tasks
    except (FileNotFoundError, SpoolUnusable):
        return {}
