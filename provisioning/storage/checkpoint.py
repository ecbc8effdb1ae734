"""The files of one claimed workflow: plan, checkpoints, outcomes, events; their formats, loading and saving."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from provisioning.clock import boot_id
from provisioning.core.attempts import NOBODY, UNKNOWN_BOOT, is_told_by_outcome, told
from provisioning.core.large import Summary
from provisioning.core.states import Outcome, TaskState
from provisioning.core.workflow import (
    FORMAT,
    Attempt,
    OutcomeRecord,
    Plan,
    Submission,
    TaskCheckpoint,
    WorkflowCheckpoint,
)
from provisioning.decoding import decoded
from provisioning.errors import SpoolUnusable
from provisioning.storage import files, growing, reading
from provisioning.storage.naming import StrPath, WrongKind, naming

MAX_PLAN_BYTES, MAX_RECORD_BYTES = 1 << 30, 4 << 20

T = TypeVar("T")


class Damaged(SpoolUnusable):
    """A file of the spool that cannot be read as what it must be. It is never overwritten."""

    def __init__(self, path: StrPath, reason: str) -> None:
        super().__init__(f"{path} is damaged: {reason}", hint="only its workflow stops; see: provisioning spool check")
        self.path = Path(path)
        self.reason = reason


class CutOff(Damaged):
    """A file without its end: what a power cut leaves of one that was not synced."""


class Newer(Damaged):
    """A file of a later version of the format: not for this one to judge."""


class owned:  # noqa: N801 - reads as the statement that it is part of
    """What is of a wrong kind in the folder of one workflow is that workflow's damage; other errors are the disk's."""

    __slots__ = ("_path",)

    def __init__(self, path: StrPath) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, WrongKind):
            raise Damaged(self._path, error.reason) from error


def encode(value: Any) -> bytes:
    """The value as the JSON of a file: one line, ended."""
    return msgspec.json.encode(value) + b"\n"


def load(path: StrPath, kind: type[T], limit: int = MAX_RECORD_BYTES) -> T:
    """Read a file as `kind`. FileNotFoundError where there is none, Damaged where it is something else.

    SpoolUnusable where it is not the file that is at fault, but the disk, its rights or this process.
    """
    with owned(path):
        data = reading.read_regular(path, limit)
    try:
        # As text: of a name that no field has, msgspec looks at no byte, and the field that lost it has its default.
        value = decoded(data.decode(), kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if (newer := _format_of(data)) > FORMAT:
            raise Newer(path, f"its format is {newer}, this version reads {FORMAT}") from error
        raise (Damaged if data.endswith(b"\n") else CutOff)(path, str(error)) from error
    if (found := getattr(value, "format", FORMAT)) != FORMAT:
        newer_or_not = Newer if found > FORMAT else Damaged
        raise newer_or_not(path, f"its format is {found}, this version reads {FORMAT}")
    return value


def _format_of(data: bytes) -> int:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 0
    value = found.get("format") if isinstance(found, dict) else None
    return value if isinstance(value, int) else 0


class WorkflowFolder:
    """The folder of one workflow, in `incoming/` or `workflows/`, and what is in it."""

    def __init__(self, path: Path, scratch: files.Scratch | None = None) -> None:
        self.path = path
        self._prefix = f"{path}/"
        self.workflow_id = path.name
        self.scratch = scratch
        self.in_doubt = False
        """Whether a checkpoint could not be written: the one on the disk may be that one or the one before."""
        self._events = growing.Appender(path / "events.jsonl")

    def prepare(self) -> None:
        """Make the folders that a claimed workflow has."""
        for name in ("tasks", "outcomes", "logs"):
            with owned(self.path / name):
                files.make_dir(self.path / name)
            if (self.path / name).is_symlink():
                raise Damaged(self.path / name, "it is a link")
        with naming(self.path):
            files.sync_dir(self.path)  # what is synced in them is lost with their names

    def submission(self) -> Submission:
        """Who submitted it, and how."""
        return load(self.path / "submission.json", Submission)

    def manifest(self) -> tuple[bytes, str]:
        """The bytes of the manifest and their form, `toml` or `json`."""
        for form in ("toml", "json"):
            path = self.path / f"manifest.{form}"
            with contextlib.suppress(FileNotFoundError), owned(path):
                return reading.read_regular(path, MAX_PLAN_BYTES), form
        raise Damaged(self.path / "manifest.toml", "there is no manifest")

    def submitted_manifest(self) -> tuple[bytes, str]:
        """The manifest as `manifest` has it; Damaged where it is not what was submitted."""
        data, form = self.manifest()
        if hashlib.sha256(data).hexdigest() != self.submission().digest:  # half a manifest may be a valid one
            raise Damaged(self.path / f"manifest.{form}", "it is not what was submitted: the digest differs")
        return data, form

    def refuse_unless_waiting(self) -> None:
        """Damaged where a workflow without a checkpoint is not one that merely has not begun.

        FileNotFoundError where it was claimed or removed meanwhile.
        """
        try:
            if self.is_begun() and self.workflow() is None:
                raise Damaged(self.path / "workflow.json", "it is missing, and tasks were started")
            self.submitted_manifest()
        except Damaged:
            if not self.path.exists():
                raise FileNotFoundError(self.path) from None
            raise

    def plan(self) -> Plan | None:
        """What will be done; None before the claim is complete."""
        try:
            return load(self.path / "plan.json", Plan, MAX_PLAN_BYTES)
        except FileNotFoundError:
            return None

    def save_plan(self, plan: Plan) -> None:
        """Write the plan, once."""
        self._save(self.path / "plan.json", plan, "plan")

    def workflow(self) -> WorkflowCheckpoint | None:
        """The workflow's checkpoint; None before the claim is complete."""
        try:
            return load(self.path / "workflow.json", WorkflowCheckpoint)
        except FileNotFoundError:
            return None

    def save_workflow(self, checkpoint: WorkflowCheckpoint, kind: str = "workflow") -> None:
        """Replace the workflow's checkpoint, as durably as `kind` of `files.DURABLE` says."""
        if kind in ("workflow ended", "rollback begins"):  # what is undone follows from the tasks
            with naming(self.path / "tasks"):
                files.sync_dir(self.path / "tasks")  # nobody settles them again once it has ended
        self._save(self.path / "workflow.json", checkpoint, kind)

    def summary(self) -> Summary | None:
        """What a look at a large workflow needs; None where there is none that can be read: it is a view."""
        try:
            return load(self.path / "summary.json", Summary)
        except (FileNotFoundError, SpoolUnusable):
            return None

    def save_summary(self, summary: Summary) -> None:
        """Replace the summary. A full disk loses it, nothing else."""
        with contextlib.suppress(SpoolUnusable):
            path = self.path / "summary.json"
            durable = files.DURABLE["view"]
            files.write_atomic(path, encode(summary), durable=durable, whole=True, scratch=self.scratch)

    def task(self, task_id: str) -> TaskCheckpoint:
        """The task's checkpoint; that of a task never started where there is no file."""
        path = self._task_file(task_id)
        try:
            checkpoint = load(path, TaskCheckpoint)
        except FileNotFoundError:
            return TaskCheckpoint(format=FORMAT, task_id=task_id)
        except CutOff as error:
            return self._told_by_files(task_id, error)
        if checkpoint.task_id != task_id:
            raise Damaged(path, f"it is the checkpoint of task {checkpoint.task_id!r}")
        if checkpoint.state is TaskState.RUNNING and not checkpoint.attempts:
            raise Damaged(path, "it is running and has no attempt")
        return checkpoint

    def is_cut_off(self, task_id: str) -> bool:
        """Whether a power cut has taken bytes of the task's checkpoint."""
        try:
            load(self._task_file(task_id), TaskCheckpoint)
        except (CutOff, FileNotFoundError) as error:
            return isinstance(error, CutOff)
        return False

    def _told_by_files(self, task_id: str, error: CutOff) -> TaskCheckpoint:
        """The checkpoint of whose bytes a power cut has taken some: of a first attempt, as those of others are synced.

        There may have been others since, of whose records the cut has taken the names. Outcomes and logs tell of all;
        the latest is under way, for recovery to find out about, unless its outcome says that it succeeded. CutOff where
        the host has not crashed since anyone worked on it: then it is another kind of damage.
        """
        workflow = self.workflow()
        if workflow is None or workflow.boot_id == boot_id():
            raise error
        there = {number for name in ("outcomes", "logs") for task, number in self._numbered(name) if task == task_id}
        made = [self._past_attempt(task_id, number, error.path) for number in sorted(there or {1})]
        if made[-1].outcome is Outcome.SUCCEEDED:
            return TaskCheckpoint(FORMAT, task_id, TaskState.SUCCEEDED, tuple(made))
        made[-1] = replace(made[-1], ended_at=None, outcome=None, exit_code=None, error=None)
        return TaskCheckpoint(FORMAT, task_id, TaskState.RUNNING, tuple(made))

    def _past_attempt(self, task_id: str, number: int, checkpoint: Path) -> Attempt:
        """What is known of an attempt that a checkpoint said nothing of any more; without an outcome it was lost."""
        if record := self.outcome(task_id, number):
            return told(Attempt(number, record.started_at, UNKNOWN_BOOT, NOBODY), record)
        at = datetime.fromtimestamp(os.stat(checkpoint).st_mtime, UTC)
        return Attempt(number, at, UNKNOWN_BOOT, NOBODY, ended_at=at, outcome=Outcome.INTERRUPTED)

    def tasks(self) -> Iterator[TaskCheckpoint]:
        """All task checkpoints that were ever written."""
        with owned(self.path / "tasks"):
            names = reading.list_names(self.path / "tasks")
        for name in names:
            if name.endswith(".json"):
                yield self.task(name.removesuffix(".json"))

    def save_task(self, checkpoint: TaskCheckpoint, kind: str = "task") -> None:
        """Replace the task's checkpoint; only the holder of the workflow's lock may."""
        if kind == "task" and is_told_by_outcome(checkpoint):
            kind = "task, first attempt"
        self._save(self._task_file(checkpoint.task_id), checkpoint, kind)

    def is_begun(self) -> bool:
        """Whether a task of it was ever started."""
        with owned(self.path):
            return any(reading.list_names(self.path / name) for name in ("tasks", "outcomes"))

    def outcome(self, task_id: str, attempt: int) -> OutcomeRecord | None:
        """How that attempt ended; None while no outcome is published."""
        path = self.outcome_file(task_id, attempt)
        try:
            record = load(path, OutcomeRecord)
        except FileNotFoundError:
            return None
        if (record.workflow_id, record.task_id, record.attempt) != (self.workflow_id, task_id, attempt):
            raise Damaged(path, "it is the outcome of another attempt")
        return record

    def result(self, checkpoint: TaskCheckpoint) -> Any:
        """What the operation of a task that succeeded returned."""
        if checkpoint.state is not TaskState.SUCCEEDED or checkpoint.last is None:
            return None
        record = self.outcome(checkpoint.task_id, checkpoint.last.number)
        return record.result if record else None

    def outcome_path(self, task_id: str, attempt: int) -> Path:
        """Where the outcome of that attempt appears."""
        return Path(self.outcome_file(task_id, attempt))

    def outcome_file(self, task_id: str, attempt: int) -> str:
        """`outcome_path` as text."""
        return f"{self._prefix}outcomes/{task_id}.{attempt}.json"

    def outcomes(self) -> list[tuple[str, int]]:
        """Task and number of each attempt that has an outcome; of one task the latest comes last."""
        return sorted(self._numbered("outcomes"))

    def _numbered(self, name: str) -> Iterator[tuple[str, int]]:
        """Task and number of each attempt of which there is a file in that folder."""
        with owned(self.path / name):
            names = reading.list_names(self.path / name)
        for parts in (each.rsplit(".", 2) for each in names):
            if len(parts) == 3 and parts[1].isdigit():
                yield parts[0], int(parts[1])

    def log_path(self, task_id: str, attempt: int) -> Path:
        """The output of that attempt; its lock says that something of the attempt lives."""
        return Path(self.log_file(task_id, attempt))

    def log_file(self, task_id: str, attempt: int) -> str:
        """`log_path` as text."""
        return f"{self._prefix}logs/{task_id}.{attempt}.log"

    def append_event(self, event: dict[str, Any]) -> None:
        """Tell people and views what happened. A full disk loses the event, nothing else."""
        with contextlib.suppress(OSError):
            self._events.append(encode(event))

    def close(self) -> None:
        """Let go of what is kept open."""
        self._events.close()

    def events(self) -> Iterator[dict[str, Any]]:
        """What happened, oldest first; lines that cannot be read are left out."""
        path = self.path / "events.jsonl"
        try:
            with owned(path):
                data = reading.read_regular(path, MAX_PLAN_BYTES)
        except FileNotFoundError:
            return
        for line in data.splitlines():
            try:
                yield msgspec.json.decode(line, type=dict[str, Any])
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue

    def _task_file(self, task_id: str) -> str:
        return f"{self._prefix}tasks/{task_id}.json"

    def _save(self, path: StrPath, value: Any, kind: str) -> None:
        whole = kind != "task, first attempt"
        try:
            with owned(path):
                files.write_atomic(path, encode(value), durable=files.DURABLE[kind], whole=whole, scratch=self.scratch)
        except BaseException:
            self.in_doubt = True
            raise
