"""A backup of a spool that is being worked: one tar file, consistent, made by reading alone.

No lock is tried and nobody waits. What makes the copy consistent is the order in which the writers work, read
backwards: a task's checkpoint before those it waits for, checkpoints before outcomes and logs, requests before
what they change, and `ids/` last. Where a workflow ended or took a request meanwhile, its part is read again.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from provisioning.clock import now
from provisioning.core.graph import Graph
from provisioning.core.rollback import undo_id, undo_tasks
from provisioning.core.states import TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, Plan, TaskCheckpoint, WorkflowCheckpoint
from provisioning.decoding import decoded
from provisioning.errors import SpoolUnusable
from provisioning.storage import reading
from provisioning.storage.checkpoint import encode
from provisioning.storage.members import CONTENTS, Contents, limit_of, measure, record_of
from provisioning.storage.naming import WrongKind, naming
from provisioning.storage.outside import writing_outside
from provisioning.storage.spool import Spool

T = TypeVar("T")

TRIES = 20
"""So often a workflow that ends, or takes requests, while it is being read is read again."""
CHUNK_BYTES = 1 << 20


class Copied(msgspec.Struct, frozen=True):
    """What a backup holds, or a restore has made."""

    workflows: dict[str, int]
    """By state."""
    interrupted: int
    """Tasks with an attempt under way whose outcome is not in the copy."""
    left_out: tuple[str, ...]
    """What is no file of the format, by its path in the spool."""
    damaged: tuple[str, ...] = ()
    """What was copied as it is and cannot be read as what it must be, by its path in the spool."""


def back_up(spool: Spool, out: BinaryIO, *, compress: bool) -> Copied:
    """Write a backup of the spool to `out`, while others work it. SpoolUnusable where a file cannot be read."""
    with contextlib.ExitStack() as stack:
        if compress:
            out = stack.enter_context(gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6))  # type: ignore[assignment]
        tar = stack.enter_context(tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT))
        return Backup(spool, tar).run()


def back_up_to(spool: Spool, path: Path, *, replace: bool) -> Copied:
    """Write a backup of the spool to the file at `path`, packed where its name ends in .gz or .tgz.

    It appears whole and durable. Refused where a file is there, unless it is to be replaced: then one of the two is
    there at any time. Where the sync of its folder fails, the new one is there, and whether durably is not known.
    """
    with writing_outside(spool, path, "backup", replace=replace) as out:
        return back_up(spool, out, compress=path.suffix in (".gz", ".tgz"))


class _Source(io.RawIOBase):
    """The first `size` bytes of a file, taken into a digest as they are read; zeros where it has become shorter."""

    def __init__(self, file: BinaryIO, size: int, digest: hashlib._Hash) -> None:
        self._file = file
        self._left = size
        self._digest = digest

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        data += bytes(wanted - len(data))
        self._left -= wanted
        self._digest.update(data)
        return data


class Backup:
    """One pass over a spool."""

    def __init__(self, spool: Spool, tar: tarfile.TarFile) -> None:
        self._spool = spool
        self._tar = tar
        self._made_at = now()
        self._digest = hashlib.sha256()
        self._members = 0
        self._copied: set[str] = set()
        self._trees: set[str] = set()
        self._found: dict[str, tuple[str, int]] = {}  # of each workflow its state, and how many tasks are under way
        self._left_out: list[str] = []
        self._damaged: list[str] = []

    def run(self) -> Copied:
        """Copy all there is."""
        self._add("format", f"{FORMAT}\n".encode())
        for workflow_id in self._spool.incoming_ids():
            self._copy_incoming(workflow_id)
        for workflow_id in self._spool.claimed_ids():
            if workflow_id not in self._copied:  # else it was claimed between the two lists
                self._copy_claimed(workflow_id)
        for name in sorted(reading.list_names(self._spool.rejected)):
            if name[-26:] not in self._copied:  # else it was rejected after it had been copied
                self._copy_tree(self._spool.rejected / name)
        for digest in sorted(self._trees):
            self._copy_tree(self._spool.nulib / digest)
        self._copy_tree(self._spool.ids)
        self._copy_tree(self._spool.root / "audit")
        gone = self._cleaned_up()  # after their operations, which go after them
        contents = Contents(FORMAT, self._made_at, self._members, self._digest.hexdigest(), gone)
        self._add(CONTENTS, encode(contents))
        kept = [found for workflow_id, found in self._found.items() if workflow_id not in gone]
        states = Counter(state for state, _ in kept)
        under_way = sum(count for _, count in kept)
        return Copied(dict(sorted(states.items())), under_way, tuple(self._left_out), tuple(self._damaged))

    def _cleaned_up(self) -> tuple[str, ...]:
        """The workflows that were copied, in whole or in part, and are no longer in the spool."""
        there = {*self._spool.incoming_ids(), *self._spool.claimed_ids()}  # in the order in which they go on
        there |= {name[-26:] for name in reading.list_names(self._spool.rejected)}
        return tuple(sorted(self._copied - there))

    # One workflow

    def _copy_incoming(self, workflow_id: str) -> None:
        staged = self._stage(self._spool.incoming / workflow_id)
        if staged is None:
            return  # claimed or rejected meanwhile: it is found there
        self._commit(workflow_id, staged)
        self._found[workflow_id] = WorkflowState.QUEUED, 0

    def _copy_claimed(self, workflow_id: str) -> None:
        folder = self._spool.workflows / workflow_id
        for _ in range(TRIES):
            asked = self._requests_of(workflow_id)
            before = self._bytes(folder / "workflow.json")
            staged = self._stage(folder)
            if staged is None:
                return  # cleaned up meanwhile
            tasks = self._stage_tasks(folder, staged)
            if before is not None:
                staged[f"workflows/{workflow_id}/workflow.json"] = before
            # In this order: a request goes only after what it changed was written.
            still = self._requests_of(workflow_id) <= asked
            if still and _standing(before) == _standing(self._bytes(folder / "workflow.json")):
                break
        else:
            raise SpoolUnusable(
                f"workflow {workflow_id} changed {TRIES} times while it was being read", hint="make the backup again"
            )
        self._commit(workflow_id, staged)
        under_way = self._copy_attempts(folder, tasks)
        checkpoint = _decoded(before, WorkflowCheckpoint)
        self._found[workflow_id] = checkpoint.state if checkpoint else WorkflowState.QUEUED, under_way

    def _requests_of(self, workflow_id: str) -> set[str]:
        return {name for name in reading.list_names(self._spool.requests) if name.startswith(f"{workflow_id}.")}

    def _stage(self, folder: Path) -> dict[str, bytes] | None:
        """Requests, submission, manifest and plan, by member name; None where the workflow is no longer there."""
        paths = [self._spool.requests / name for name in sorted(self._requests_of(folder.name))]
        paths += [folder / name for name in ("submission.json", "origin.json", "manifest.sig")]
        paths += [folder / name for name in ("manifest.toml", "manifest.json", "plan.json")]
        found: dict[str, bytes] = {}
        for path in paths:
            data = self._bytes(path)
            if data is not None:
                found[self._name(path)] = data
        return found if os.path.lexists(folder) else None

    def _stage_tasks(self, folder: Path, staged: dict[str, bytes]) -> dict[str, TaskCheckpoint | None]:
        """Add the task checkpoints, and return them; None for one that cannot be read as such."""
        plan = _decoded(staged.get(self._name(folder / "plan.json")), Plan)
        found: dict[str, TaskCheckpoint | None] = {}
        for task_id in _dependents_first(plan) if plan else self._task_ids(folder):
            path = folder / "tasks" / f"{task_id}.json"
            data = self._bytes(path)
            if data is not None:
                staged[self._name(path)] = data
                found[task_id] = _decoded(data, TaskCheckpoint)
        return found

    def _task_ids(self, folder: Path) -> list[str]:
        return [name.removesuffix(".json") for name in sorted(self._listed(folder / "tasks"))]

    def _commit(self, workflow_id: str, staged: dict[str, bytes]) -> None:
        self._copied.add(workflow_id)
        for name, data in staged.items():
            if name.endswith("/plan.json") and (plan := _decoded(data, Plan)):
                self._trees.add(plan.nulib)
            self._add(name, data)

    def _copy_attempts(self, folder: Path, tasks: dict[str, TaskCheckpoint | None]) -> int:
        """Outcomes and logs of the attempts that the copied checkpoints know; of a damaged one, all there are.

        How many of them are under way: without an outcome in the copy.
        """
        known = {(task, a.number) for task, checkpoint in tasks.items() if checkpoint for a in checkpoint.attempts}
        running = {
            (task, checkpoint.attempts[-1].number)
            for task, checkpoint in tasks.items()
            if checkpoint and checkpoint.state is TaskState.RUNNING and checkpoint.attempts
        }
        for kind in ("outcomes", "logs"):
            for name in sorted(self._listed(folder / kind)):
                task, _, number = name.rpartition(".")[0].rpartition(".")
                if not number.isdigit() or task not in tasks:
                    continue
                if (tasks[task] is None or (task, int(number)) in known) and self._copy(folder / kind / name):
                    running -= {(task, int(number))} if kind == "outcomes" else set()
        self._copy(folder / "events.jsonl")
        return len(running)

    # Files

    def _copy_tree(self, folder: Path) -> None:
        """Every file below the folder."""
        for path in sorted(_below(folder)):
            self._copy(path)

    def _copy(self, path: Path) -> bool:
        """Add the file as long as it is at this moment; whether it is there and one that the format knows."""
        name = self._name(path)
        limit = limit_of(name)
        if record_of(name) is not None:
            data = self._bytes(path)
            if data is not None:
                self._add(name, data)
            return data is not None
        try:
            with os.fdopen(reading.open_regular(path), "rb") as file, naming(path, "read"):
                size = os.fstat(file.fileno()).st_size
                if limit is None or size > limit:
                    self._leave_out(name)
                    return False
                self._add_from(name, file, size)
        except FileNotFoundError:
            return False
        except WrongKind:
            self._leave_out(name)
            return False
        return True

    def _add(self, name: str, data: bytes) -> None:
        if (kind := record_of(name)) is not None and _decoded(data, kind) is None:
            self._damaged.append(name)
        self._add_from(name, io.BytesIO(data), len(data))

    def _add_from(self, name: str, file: BinaryIO, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, int(self._made_at.timestamp())
        if name != CONTENTS:
            self._members += 1
            measure(self._digest, name, size)
        self._tar.addfile(info, _Source(file, size, self._digest))

    def _bytes(self, path: Path) -> bytes | None:
        """What is in the file; None where there is none, or something that the format does not have there."""
        name = self._name(path)
        limit = limit_of(name)
        try:
            if limit is not None:
                return reading.read_regular(path, limit)
        except FileNotFoundError:
            return None
        except WrongKind:
            pass
        self._leave_out(name)
        return None

    def _leave_out(self, name: str) -> None:
        if os.path.lexists(self._spool.root / name) and name not in self._left_out:
            self._left_out.append(name)

    def _listed(self, folder: Path) -> list[str]:
        try:
            return reading.list_names(folder)
        except WrongKind:
            self._leave_out(self._name(folder))
            return []

    def _name(self, path: Path) -> str:
        return path.relative_to(self._spool.root).as_posix()


def _below(folder: Path) -> Iterator[Path]:
    if not folder.is_dir() or folder.is_symlink():
        yield folder
    for parent, _, names in os.walk(folder):
        yield from (Path(parent) / name for name in names)


def _standing(data: bytes | None) -> object:
    """What of a workflow's checkpoint the copies of its tasks must go with."""
    checkpoint = _decoded(data, WorkflowCheckpoint)
    return (checkpoint.state, checkpoint.cancelling, checkpoint.applied) if checkpoint else data


def _decoded(data: bytes | None, kind: type[T]) -> T | None:
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return decoded(data, kind) if data is not None else None
    return None


def _dependents_first(plan: Plan) -> list[str]:
    """The tasks of the plan, each before those it waits for: whoever had started is read before why it could."""
    graph = Graph(plan.workflow.tasks)
    order = [graph.names[i] for i in graph.order if i < graph.size]
    undos = undo_tasks(plan)
    if len(order) < graph.size:  # a ring: nothing in it ever starts
        return graph.names[: graph.size]
    return [*(each for name in order if (each := undo_id(name)) in undos), *reversed(order)]
