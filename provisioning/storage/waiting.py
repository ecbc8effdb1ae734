"""`waiting.json` of a workflow: why attempts that are with Slurm do not run yet. A view, which may be lost."""

from __future__ import annotations

import contextlib
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


def save_waiting(folder: Path, tasks: dict[str, str]) -> None:
    """Replace the view of the workflow in that folder; without anything that waits there is none."""
    path = folder / "waiting.json"
    with contextlib.suppress(SpoolUnusable):
        if not tasks:
            files.remove(path)
        elif folder.is_dir():
            files.write_atomic(path, encode(Waiting(FORMAT, tasks)), durable=files.DURABLE["view"])


def waiting_of(folder: Path) -> dict[str, str]:
    """What is known to wait, by task; nothing where that cannot be read."""
    try:
        return load(folder / "waiting.json", Waiting).tasks
    except (FileNotFoundError, SpoolUnusable):
        return {}
