"""Holds the folder of one workflow to the format: its files, and what they say of each other."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from provisioning.core.graph import Graph, contradictions
from provisioning.core.identifiers import TASK_ID
from provisioning.core.large import Summary
from provisioning.core.rollback import undo_tasks
from provisioning.core.states import ENDED_WORKFLOWS, Outcome, TaskState, WorkflowState
from provisioning.core.workflow import (
    OutcomeRecord,
    Plan,
    Submission,
    TaskCheckpoint,
    WorkflowCheckpoint,
)
from provisioning.errors import NotFound, Problem, ProvisioningError
from provisioning.storage import reading
from provisioning.storage.checkpoint import Damaged, Newer, WorkflowFolder, load
from provisioning.storage.naming import WrongKind
from provisioning.storage.spool import Spool
from provisioning.storage.waiting import Waiting

T = TypeVar("T")

ATTEMPT_FILE = re.compile(r"(?P<task>.+)\.(?P<number>[1-9][0-9]*)\.(?P<kind>json|log)\Z")
_FILES = {
    "origin.json",
    "manifest.sig",
    "plan.json",
    "workflow.json",
    "submission.json",
    "manifest.toml",
    "manifest.json",
    "events.jsonl",
    "lock",
    "summary.json",
    "waiting.json",
}
_FOLDERS = {"tasks", "outcomes", "logs"}
_LEFTOVER = re.compile(r"\.(.+\.)?[0-7][0-9abcdefghjkmnpqrstvwxyz]{25}\Z")
_STOPS = "only its workflow stops; nothing overwrites it"
_ENDED_TASKS = (TaskState.SUCCEEDED, TaskState.FAILED)


def problem(code: str, path: Path, message: str, hint: str = "") -> Problem:
    """One finding about a file."""
    return Problem(code, message, hint, str(path))


def damaged(path: Path, reason: str) -> Problem:
    """What is not the file that the format has there."""
    return problem("damaged", path, reason, _STOPS)


def foreign(path: Path) -> Problem:
    """What the format does not have."""
    return problem("foreign-file", path, "the format knows no such name", "move it out of the spool")


def leftovers(folder: Path) -> list[Problem]:
    """Files of writers that died before they could give them their names."""
    found = []
    if folder.is_dir():
        found = [name for name in sorted(os.listdir(folder)) if _LEFTOVER.match(name)]
    return [problem("leftover", folder / name, "whoever wrote it died before it was complete") for name in found]


def open_folder(path: Path) -> list[Problem]:
    """What is wrong with the owner and the mode of a folder that is there."""
    found = []
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return []
    if status.st_uid != os.geteuid():
        found.append(problem("foreign-owner", path, f"it belongs to uid {status.st_uid}", f"chown {os.geteuid()}"))
    if stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) & 0o022:
        found.append(problem("open-to-others", path, f"its mode is {stat.S_IMODE(status.st_mode):o}", "chmod go-w"))
    return found


def read(found: list[Problem], within: Path, path: Path, load: Callable[[], T]) -> T | None:
    """What `load` gives, or None and the problem that keeps it; none where `within` was claimed, applied or removed."""
    try:
        return load()
    except (NotFound, FileNotFoundError):
        wrong = damaged(path, "it is missing")
    except Newer as error:
        wrong = problem("newer", error.path, error.reason, "use the version that wrote it, or a later one")
    except Damaged as error:
        wrong = damaged(error.path, error.reason)
    except WrongKind as error:
        wrong = damaged(path, error.reason)
    except ProvisioningError as error:
        wrong = problem("unreadable", path, error.message, error.hint)
    if os.path.lexists(within):
        found.append(wrong)
    return None


def check_submission(found: list[Problem], folder: WorkflowFolder) -> Submission | None:
    """What every workflow has from its first instant: who submitted which bytes."""
    path = folder.path
    submission = read(found, path, path / "submission.json", folder.submission)
    manifest = read(found, path, path / "manifest.toml", folder.manifest)
    if submission is None or manifest is None:
        return submission
    if submission.workflow_id != folder.workflow_id:
        found.append(_of_another(path / "submission.json", submission.workflow_id))
    if hashlib.sha256(manifest[0]).hexdigest() != submission.digest:
        place = path / f"manifest.{manifest[1]}"
        found.append(problem("wrong-digest", place, "it is not what was submitted: the digest differs", ""))
    return submission


def _of_another(path: Path, workflow_id: str) -> Problem:
    return problem("foreign-record", path, f"it is of workflow {workflow_id}", _STOPS)


def check_claimed(spool: Spool, folder: WorkflowFolder) -> list[Problem]:
    """All that is wrong with a claimed workflow."""
    found: list[Problem] = []
    path = folder.path
    for name in ("", "tasks", "outcomes", "logs"):
        found += open_folder(path / name)
        found += leftovers(path / name)
    found += [foreign(path / name) for name in reading.list_names(path) if name not in _FILES | _FOLDERS]
    found += [
        damaged(path / name, "it is not a regular file")
        for name in ("lock", "events.jsonl")
        if _is_strange(path / name)
    ]
    check_submission(found, folder)
    if os.path.lexists(path / "summary.json"):
        read(found, path, path / "summary.json", partial(load, path / "summary.json", Summary))
    if os.path.lexists(path / "waiting.json"):
        read(found, path, path / "waiting.json", partial(load, path / "waiting.json", Waiting))
    checkpoint = read(found, path, path / "workflow.json", folder.workflow)
    plan = read(found, path, path / "plan.json", folder.plan)  # after its checkpoint, which is written later
    if checkpoint and checkpoint.workflow_id != folder.workflow_id:
        found.append(_of_another(path / "workflow.json", checkpoint.workflow_id))
    if plan and plan.workflow_id != folder.workflow_id:
        found.append(_of_another(path / "plan.json", plan.workflow_id))
    if not path.exists() or plan is None:
        begun = checkpoint is not None or _is_begun(path)
        if begun and path.exists() and not os.path.lexists(path / "plan.json"):
            found.append(problem("no-plan", path / "plan.json", "it is missing", _STOPS))
        return found  # claimed, and the claimer died before it had planned: the next one plans
    _check_plan(found, spool, path / "plan.json", plan)
    _Records(found, folder, plan, checkpoint).check(asked=bool(spool.requests_of(folder.workflow_id)))
    return found


def _is_begun(path: Path) -> bool:
    """Whether a task of the workflow was ever started."""
    return (path / "tasks").is_dir() and bool(reading.list_names(path / "tasks"))


def _check_plan(found: list[Problem], spool: Spool, path: Path, plan: Plan) -> None:
    tree = spool.nulib / plan.nulib
    missing = [name for name in plan.operations if not (tree / "entries" / f"{name}.nu").is_file()]
    if not tree.is_dir() or missing:
        named = "" if not tree.is_dir() else f"entries/{missing[0]}.nu of "
        found.append(problem("no-operations", path, f"no {named}{plan.nulib} in {spool.nulib}", "restore it"))
    found += [each for folder in (tree, tree / "tree", tree / "entries") for each in open_folder(folder)]
    found += [problem("contradiction", path, said, _STOPS) for said in contradictions(plan)]


def _is_strange(path: Path) -> bool:
    return os.path.lexists(path) and not stat.S_ISREG(_mode(path))


def _mode(path: Path) -> int:
    """Its mode; that of a plain file where it is gone by now."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return stat.S_IFREG


class _Records:
    """Task checkpoints, outcomes and logs of one workflow, held against its plan and against each other."""

    def __init__(
        self, found: list[Problem], folder: WorkflowFolder, plan: Plan, checkpoint: WorkflowCheckpoint | None
    ) -> None:
        self._found = found
        self._folder = folder
        self._plan = plan
        self._workflow = checkpoint
        self._known = {task.id: task for task in plan.workflow.tasks}
        self._undos = undo_tasks(plan)
        self._tasks: dict[str, TaskCheckpoint] = {}
        self._unread: set[str] = set()

    def check(self, *, asked: bool) -> None:
        """Look at all of them; `asked` says that a request may be being applied right now."""
        self._read_tasks()
        for checkpoint in self._tasks.values():
            self._check_attempts(checkpoint)
        self._check_order()
        for path in (*self._listed("outcomes"), *self._listed("logs")):
            self._check_attempt_file(path)
        path = self._folder.path / "workflow.json"
        if (self._tasks or self._unread) and not os.path.lexists(path):
            self._found.append(problem("no-checkpoint", path, "tasks were started, and it is missing", ""))
        elif self._workflow is not None and self._workflow.state in ENDED_WORKFLOWS and not asked:
            self._check_end(self._workflow)

    def _say(self, code: str, path: Path, message: str, hint: str = "") -> None:
        self._found.append(problem(code, path, message, hint))

    def _path(self, task_id: str) -> Path:
        return self._folder.path / "tasks" / f"{task_id}.json"

    def _listed(self, name: str) -> list[Path]:
        folder = self._folder.path / name
        if os.path.lexists(folder) and not stat.S_ISDIR(_mode(folder)):
            self._found.append(damaged(folder, "it is not a folder"))
            return []
        return [folder / each for each in read(self._found, folder, folder, partial(reading.list_names, folder)) or ()]

    def _read_tasks(self) -> None:
        for path in self._listed("tasks"):
            task_id = path.name.removesuffix(".json")
            if not path.name.endswith(".json") or not TASK_ID.match(task_id):
                self._found.append(foreign(path))
            elif task_id not in self._known and task_id not in self._undos:
                self._say("unknown-task", path, f"the plan has no task {task_id!r}")
            elif checkpoint := read(self._found, path, path, partial(self._folder.task, task_id)):
                self._tasks[task_id] = checkpoint
            else:
                self._unread.add(task_id)  # reported: it blames no outcome

    def _check_attempts(self, checkpoint: TaskCheckpoint) -> None:
        path, last = self._path(checkpoint.task_id), checkpoint.last
        if checkpoint.state is TaskState.RUNNING and self._folder.is_cut_off(checkpoint.task_id):
            self._say("cut-off", path, "it ends before its last byte, as after a power cut")
        numbers = [attempt.number for attempt in checkpoint.attempts]
        if numbers != sorted({number for number in numbers if number >= 1}):
            self._say("contradiction", path, f"its attempts are numbered {numbers}")
        if [attempt.number for attempt in checkpoint.attempts[:-1] if attempt.outcome is None]:
            self._say("contradiction", path, "an attempt has not ended and was followed by another")
        ended = last.outcome is not None if last else False
        if checkpoint.state is TaskState.RUNNING and ended:
            self._say("contradiction", path, "it is running, and its latest attempt has ended")
        elif checkpoint.state is TaskState.PENDING and last and not ended:
            self._say("contradiction", path, "it is pending, and its latest attempt has not ended")
        elif checkpoint.state in _ENDED_TASKS and not ended:
            self._say("contradiction", path, f"it has {checkpoint.state}, and no attempt of it has ended")
        if checkpoint.state is TaskState.SUCCEEDED and last and last.outcome not in (Outcome.SUCCEEDED, None):
            self._say("contradiction", path, f"it has succeeded, and its latest attempt was {last.outcome}")
        if checkpoint.state in _ENDED_TASKS and last and last.outcome is not Outcome.INTERRUPTED:
            outcome = self._folder.outcome_path(checkpoint.task_id, last.number)
            if not os.path.lexists(outcome) and path.exists():
                self._say("no-outcome", path, f"outcome {outcome.name} is missing")

    def _check_order(self) -> None:
        """Whoever was started depends on nobody that never was."""
        started = {task_id for task_id, each in self._tasks.items() if each.attempts} | self._unread
        graph = Graph(self._plan.workflow.tasks)
        for number in graph.order:
            name = graph.names[number]
            missing = [graph.names[j] for j in graph.waits[number] if j >= 0 and graph.names[j] not in started]
            if number >= graph.size and not missing:  # a group, all of which was
                started.add(name)
            for other in missing if name in self._tasks and name in started else ():
                self._say("too-early", self._path(name), f"it was started, and {other}, on which it depends, never was")

    def _check_attempt_file(self, path: Path) -> None:
        parts = ATTEMPT_FILE.match(path.name)
        if parts is None or parts["kind"] != {"outcomes": "json", "logs": "log"}[path.parent.name]:
            self._found.append(foreign(path))
        elif parts["task"] not in self._known and parts["task"] not in self._undos:
            self._say("unknown-task", path, f"the plan has no task {parts['task']!r}")
        elif parts["kind"] == "log":
            if not stat.S_ISREG(_mode(path)):
                self._found.append(damaged(path, "it is not a regular file"))
            elif (number := int(parts["number"])) > self._latest(parts["task"]):
                self._say("unknown-attempt", path, f"task {parts['task']} has no attempt {number}")
        else:
            task_id, number = parts["task"], int(parts["number"])
            record = read(self._found, path, path, partial(self._folder.outcome, task_id, number))
            if record is not None and task_id not in self._unread:
                self._check_outcome(path, task_id, record)

    def _latest(self, task_id: str) -> int:
        """The number of the task's latest attempt as it is now; older ones that never began are forgotten."""
        try:
            last = self._folder.task(task_id).last
        except ProvisioningError:
            return sys.maxsize
        return last.number if last else 0

    def _check_outcome(self, path: Path, task_id: str, record: OutcomeRecord) -> None:
        try:
            attempts = self._folder.task(task_id).attempts  # as it is now: it may have gone on since
        except ProvisioningError:
            return
        attempt = next((each for each in attempts if each.number == record.attempt), None)
        # A worker that is told to end although nobody asked to cancel leaves `cancelled`, which counts as interrupted.
        if attempt is None:
            self._say("unknown-attempt", path, f"task {task_id} has no attempt {record.attempt}")
        elif attempt.outcome not in (None, record.outcome) and attempt.outcome is not Outcome.INTERRUPTED:
            told = f"its outcome says {record.outcome}, the task's checkpoint {attempt.outcome}"
            self._say("contradiction", path, told)

    def _check_end(self, workflow: WorkflowCheckpoint) -> None:
        for checkpoint in self._tasks.values():
            if checkpoint.state is TaskState.RUNNING:
                self._say("unfinished", self._path(checkpoint.task_id), "its workflow has ended")
        path = self._folder.path / "workflow.json"
        succeeded = {task_id for task_id, each in self._tasks.items() if each.state is TaskState.SUCCEEDED}
        skipped = {task_id for task_id, each in self._tasks.items() if each.state is TaskState.SKIPPED}
        skipped = Graph(self._plan.workflow.tasks).behind(skipped) if skipped else skipped
        rest = sorted(self._known.keys() - succeeded - skipped - self._unread)
        if workflow.state is WorkflowState.SUCCEEDED and rest:
            self._say("wrong-end", path, f"it has succeeded, and task {rest[0]} has not")
        elif workflow.counts and sum(workflow.counts.values()) != len(self._known):
            self._say("wrong-end", path, f"it counts other tasks than the {len(self._known)} of the plan")
