"""Holds a spool to its format: every invariant that a look at the files can show. It changes nothing."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from provisioning.core.identifiers import TASK_ID, WORKFLOW_ID
from provisioning.core.states import ENDED_WORKFLOWS, TaskState
from provisioning.core.workflow import Plan
from provisioning.errors import Problem, ProvisioningError
from provisioning.storage import files
from provisioning.storage.checkpoint import WorkflowFolder, load, load_request
from provisioning.storage.spool import FOLDERS, Reservation, Spool

CODES = {
    "unusable": "the spool cannot be opened at all",
    "foreign-owner": "a folder belongs to another user",
    "open-to-others": "a folder can be written by others",
    "foreign-file": "a name that the format does not know",
    "damaged": "a file that cannot be read as what it must be",
    "no-operations": "a plan refers to operations that the spool does not keep",
    "unknown-task": "a checkpoint, outcome or log of a task that the plan does not have",
    "unknown-attempt": "an outcome of an attempt that the task's checkpoint does not know",
    "no-outcome": "a task succeeded but the outcome that says so is missing",
    "unfinished": "a workflow has ended but a task of it is still running",
}
"""What `check` may report, and what it means."""

_KNOWN = {*FOLDERS, "format", "README.md", "examples", "orchestrator.json", "metrics.prom", "drop", "taking", "audit"}
_WORKFLOW_FILES = {"plan.json", "workflow.json", "submission.json", "manifest.toml", "manifest.json", "events.jsonl"}
_WORKFLOW_NAMES = {*_WORKFLOW_FILES, "lock", "tasks", "outcomes", "logs"}
_ATTEMPT_FILE = re.compile(r"(?P<task>.+)\.(?P<number>[1-9][0-9]*)\.(json|log)\Z")


def check(root: Path) -> list[Problem]:
    """Everything in the spool that its format does not allow, by code."""
    try:
        spool = Spool.open(root)
    except ProvisioningError as error:
        return [Problem("unusable", error.message, error.hint, str(root))]
    found = [*_folders(spool), *_names(spool)]
    for workflow_id in spool.incoming_ids():
        folder = WorkflowFolder(spool.incoming / workflow_id)
        found += [*_reads(folder.submission), *_reads(folder.manifest)]
    for workflow_id in spool.claimed_ids():
        found += _workflow(spool, WorkflowFolder(spool.workflows / workflow_id))
    for name in files.list_names(spool.requests):
        found += _reads(lambda name=name: load_request(spool.requests / name))  # type: ignore[misc]
    for name in files.list_names(spool.ids):
        if name.endswith(".json"):
            found += _reads(lambda name=name: load(spool.ids / name, Reservation))  # type: ignore[misc]
    return found


def _folders(spool: Spool) -> Iterator[Problem]:
    for path in [spool.root, *(spool.root / name for name in FOLDERS)]:
        status = os.stat(path)
        if status.st_uid != os.geteuid():
            yield _problem("foreign-owner", path, f"it belongs to uid {status.st_uid}", f"chown {os.geteuid()}")
        if stat.S_IMODE(status.st_mode) & 0o022:
            yield _problem("open-to-others", path, f"its mode is {stat.S_IMODE(status.st_mode):o}", "chmod go-w")


def _names(spool: Spool) -> Iterator[Problem]:
    """Names that nothing of the format explains."""
    for name in files.list_names(spool.root):
        if name not in _KNOWN:
            yield _foreign(spool.root / name)
    for parent in (spool.incoming, spool.workflows):
        for name in files.list_names(parent):
            if not WORKFLOW_ID.match(name):
                yield _foreign(parent / name)


def _workflow(spool: Spool, folder: WorkflowFolder) -> Iterator[Problem]:
    for name in files.list_names(folder.path):
        if name not in _WORKFLOW_NAMES:
            yield _foreign(folder.path / name)
    for read in (folder.submission, folder.manifest, folder.plan, folder.workflow):
        yield from _reads(read)
    try:
        plan = folder.plan()
        checkpoint = folder.workflow()
    except (ProvisioningError, OSError):
        return
    if plan is None:
        return  # claimed, and the claimer died before it had planned: the next one plans
    if not (spool.nulib / plan.nulib).is_dir():
        yield _problem("no-operations", folder.path / "plan.json", f"no {plan.nulib} in {spool.nulib}", "")
    ended = checkpoint is not None and checkpoint.state in ENDED_WORKFLOWS
    yield from _tasks(folder, plan, ended=ended)
    yield from _attempts(folder, plan)


def _tasks(folder: WorkflowFolder, plan: Plan, *, ended: bool) -> Iterator[Problem]:
    known = {task.id for task in plan.workflow.tasks}
    for name in files.list_names(folder.path / "tasks"):
        path = folder.path / "tasks" / name
        task_id = name.removesuffix(".json")
        if not name.endswith(".json") or not TASK_ID.match(task_id):
            yield _foreign(path)
        elif task_id not in known:
            yield _problem("unknown-task", path, f"the plan has no task {task_id!r}", "")
        elif damage := list(_reads(lambda task_id=task_id: folder.task(task_id))):  # type: ignore[misc]
            yield from damage
        else:
            checkpoint = folder.task(task_id)
            last = checkpoint.last
            if ended and checkpoint.state is TaskState.RUNNING:
                yield _problem("unfinished", path, "its workflow has ended", "")
            if (
                checkpoint.state is TaskState.SUCCEEDED
                and last
                and not folder.outcome_path(task_id, last.number).exists()
            ):
                yield _problem("no-outcome", path, f"outcome {task_id}.{last.number}.json is missing", "")


def _attempts(folder: WorkflowFolder, plan: Plan) -> Iterator[Problem]:
    known = {task.id for task in plan.workflow.tasks}
    for parent in ("outcomes", "logs"):
        for name in files.list_names(folder.path / parent):
            path = folder.path / parent / name
            parts = _ATTEMPT_FILE.match(name)
            if parts is None:
                yield _foreign(path)
            elif parts["task"] not in known:
                yield _problem("unknown-task", path, f"the plan has no task {parts['task']!r}", "")
            elif parent == "outcomes":
                task_id, number = parts["task"], int(parts["number"])
                if damage := list(_reads(lambda t=task_id, n=number: folder.outcome(t, n))):  # type: ignore[misc]
                    yield from damage
                elif number not in _known_attempts(folder, task_id):
                    yield _problem("unknown-attempt", path, f"task {task_id} has no attempt {number}", "")


def _known_attempts(folder: WorkflowFolder, task_id: str) -> set[int]:
    try:
        return {attempt.number for attempt in folder.task(task_id).attempts}
    except (ProvisioningError, OSError):
        return set()


def _reads(read: Callable[[], Any]) -> Iterator[Problem]:
    """What keeps a file from being read."""
    try:
        read()
    except (ProvisioningError, OSError) as error:
        path = getattr(error, "path", None) or getattr(error, "filename", None) or ""
        yield Problem("damaged", str(error), "only its workflow stops; nothing overwrites it", str(path))


def _foreign(path: Path) -> Problem:
    return _problem("foreign-file", path, "the format knows no such name", "move it out of the spool")


def _problem(code: str, path: Path, message: str, hint: str) -> Problem:
    return Problem(code, message, hint, str(path))
