"""Holds a spool to its format: every invariant that a look at the files can show. It changes nothing."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from provisioning.core.identifiers import TASK_ID, WORKFLOW_ID
from provisioning.core.states import ENDED_WORKFLOWS, TaskState
from provisioning.errors import NotFound, Problem, ProvisioningError
from provisioning.storage import files
from provisioning.storage.checkpoint import Damaged, WorkflowFolder, load, load_request
from provisioning.storage.naming import WrongKind
from provisioning.storage.opening import check_folders, check_format
from provisioning.storage.spool import FOLDERS, Reservation, Spool

T = TypeVar("T")

CODES = {
    "unusable": "the spool cannot be opened at all",
    "foreign-owner": "a folder belongs to another user",
    "open-to-others": "a folder can be written by others",
    "foreign-file": "a name that the format does not know",
    "damaged": "a file that cannot be read as what it must be",
    "unreadable": "a file that the system did not let this process read",
    "no-plan": "a workflow has a checkpoint but no plan",
    "no-operations": "a plan refers to operations that the spool does not keep",
    "unknown-task": "a checkpoint, outcome or log of a task that the plan does not have",
    "unknown-attempt": "an outcome of an attempt that the task's checkpoint does not know",
    "no-outcome": "a task succeeded but the outcome that says so is missing",
    "unfinished": "a workflow has ended but a task of it is still running",
}
"""What `check` may report, and what it means."""

_KNOWN = {*FOLDERS, "format", "README.md", "examples", "orchestrator.json"}
_WORKFLOW_FILES = {"plan.json", "workflow.json", "submission.json", "manifest.toml", "manifest.json", "events.jsonl"}
_WORKFLOW_NAMES = {*_WORKFLOW_FILES, "lock", "tasks", "outcomes", "logs"}
_ATTEMPT_FILE = re.compile(r"(?P<task>.+)\.(?P<number>[1-9][0-9]*)\.(?P<kind>json|log)\Z")
_STOPS = "only its workflow stops; nothing overwrites it"


def check(root: Path) -> list[Problem]:
    """Everything in the spool that its format does not allow, by code."""
    try:
        check_format(root)
        check_folders(root)
    except ProvisioningError as error:
        return [Problem("unusable", error.message, error.hint, str(root))]
    spool = Spool(root)  # not by `open`, which refuses the modes that are reported here
    found = [*_folders(spool), *_names(spool)]
    for workflow_id in spool.incoming_ids():
        folder = WorkflowFolder(spool.incoming / workflow_id)
        _read(found, folder.path, folder.path / "submission.json", folder.submission)
        _read(found, folder.path, folder.path / "manifest.toml", folder.manifest)
    for workflow_id in spool.claimed_ids():
        _workflow(found, spool, WorkflowFolder(spool.workflows / workflow_id))
    for path in (spool.requests / name for name in files.list_names(spool.requests)):
        _read(found, path, path, partial(load_request, path))
    for path in (spool.ids / name for name in files.list_names(spool.ids)):
        if path.name.endswith(".json"):
            _read(found, path, path, partial(load, path, Reservation))
        elif not path.name.endswith(".cleaned"):
            found.append(_foreign(path))
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
        folders = set(files.list_names(parent, folders=True))
        for name in files.list_names(parent):
            if not WORKFLOW_ID.match(name):
                yield _foreign(parent / name)
            elif name not in folders and os.path.lexists(parent / name):
                yield _damaged(parent / name, "it is not a folder")


def _workflow(found: list[Problem], spool: Spool, folder: WorkflowFolder) -> None:
    path = folder.path
    found += (_foreign(path / name) for name in files.list_names(path) if name not in _WORKFLOW_NAMES)
    _read(found, path, path / "submission.json", folder.submission)
    _read(found, path, path / "manifest.toml", folder.manifest)
    before = len(found)
    checkpoint = _read(found, path, path / "workflow.json", folder.workflow)
    plan = _read(found, path, path / "plan.json", folder.plan)  # after its checkpoint, which is written later
    if len(found) > before or not path.exists():
        return
    if plan is None:
        if checkpoint is not None:
            found.append(_problem("no-plan", path / "plan.json", "it is missing", _STOPS))
        return  # claimed, and the claimer died before it had planned: the next one plans
    if not (spool.nulib / plan.nulib).is_dir():
        found.append(_problem("no-operations", path / "plan.json", f"no {plan.nulib} in {spool.nulib}", ""))
    known = {task.id for task in plan.workflow.tasks}
    _tasks(found, folder, known, ended=checkpoint is not None and checkpoint.state in ENDED_WORKFLOWS)
    _attempts(found, folder, known)


def _tasks(found: list[Problem], folder: WorkflowFolder, known: set[str], *, ended: bool) -> None:
    for path in _listed(found, folder.path / "tasks"):
        task_id = path.name.removesuffix(".json")
        if not path.name.endswith(".json") or not TASK_ID.match(task_id):
            found.append(_foreign(path))
        elif task_id not in known:
            found.append(_problem("unknown-task", path, f"the plan has no task {task_id!r}", ""))
        elif checkpoint := _read(found, path, path, partial(folder.task, task_id)):
            last = checkpoint.last
            if ended and checkpoint.state is TaskState.RUNNING:
                found.append(_problem("unfinished", path, "its workflow has ended", ""))
            if checkpoint.state is TaskState.SUCCEEDED and last:
                outcome = folder.outcome_path(task_id, last.number)
                if not outcome.exists() and path.exists():
                    found.append(_problem("no-outcome", path, f"outcome {outcome.name} is missing", ""))


def _attempts(found: list[Problem], folder: WorkflowFolder, known: set[str]) -> None:
    for path in (*_listed(found, folder.path / "outcomes"), *_listed(found, folder.path / "logs")):
        parts = _ATTEMPT_FILE.match(path.name)
        if parts is None or parts["kind"] != {"outcomes": "json", "logs": "log"}[path.parent.name]:
            found.append(_foreign(path))
        elif parts["task"] not in known:
            found.append(_problem("unknown-task", path, f"the plan has no task {parts['task']!r}", ""))
        elif parts["kind"] == "log":
            if not stat.S_ISREG(_mode(path)):
                found.append(_damaged(path, "it is not a regular file"))
        else:
            task_id, number = parts["task"], int(parts["number"])
            record = _read(found, path, path, partial(folder.outcome, task_id, number))
            if record and not _knows(folder, task_id, number):
                found.append(_problem("unknown-attempt", path, f"task {task_id} has no attempt {number}", ""))


def _knows(folder: WorkflowFolder, task_id: str, number: int) -> bool:
    """Whether the task's checkpoint has the attempt; a damaged one is reported as such, and blames no outcome."""
    try:
        return any(attempt.number == number for attempt in folder.task(task_id).attempts)
    except ProvisioningError:
        return True


def _mode(path: Path) -> int:
    """Its mode; that of a plain file where it is gone by now."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return stat.S_IFREG


def _listed(found: list[Problem], folder: Path) -> list[Path]:
    if os.path.lexists(folder) and not stat.S_ISDIR(_mode(folder)):
        found.append(_damaged(folder, "it is not a folder"))
        return []
    return [folder / name for name in _read(found, folder, folder, partial(files.list_names, folder)) or ()]


def _read(found: list[Problem], within: Path, path: Path, read: Callable[[], T]) -> T | None:
    """What `read` finds, or None and the problem that keeps it; none where `within` was claimed, applied or removed."""
    try:
        return read()
    except (NotFound, FileNotFoundError):
        problem = _damaged(path, "it is missing")
    except Damaged as error:
        problem = _damaged(error.path, error.reason)
    except WrongKind as error:
        problem = _damaged(path, error.reason)
    except ProvisioningError as error:
        problem = _problem("unreadable", path, error.message, error.hint)
    if os.path.lexists(within):
        found.append(problem)
    return None


def _damaged(path: Path, reason: str) -> Problem:
    return _problem("damaged", path, reason, _STOPS)


def _foreign(path: Path) -> Problem:
    return _problem("foreign-file", path, "the format knows no such name", "move it out of the spool")


def _problem(code: str, path: Path, message: str, hint: str) -> Problem:
    return Problem(code, message, hint, str(path))
