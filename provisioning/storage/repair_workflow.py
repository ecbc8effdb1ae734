"""Repairs one workflow whose lock is held: checkpoints are rebuilt from outcomes and logs, and guess nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from provisioning.clock import new_ulid, now
from provisioning.core.attempts import UNKNOWN_BOOT
from provisioning.core.identifiers import SLURM
from provisioning.core.states import ENDED_WORKFLOWS, Outcome, TaskState, WorkflowState
from provisioning.core.workflow import (
    FORMAT,
    Attempt,
    OutcomeRecord,
    TaskCheckpoint,
    WorkflowCheckpoint,
)
from provisioning.errors import Problem
from provisioning.storage import files, reading
from provisioning.storage.aside import LEFT, Aside
from provisioning.storage.check_workflow import ATTEMPT_FILE
from provisioning.storage.checkpoint import Damaged, WorkflowFolder
from provisioning.storage.logs import attempt_is_alive
from provisioning.storage.shared import ordered_there

_INPUTS = ("plan.json", "submission.json", "manifest.toml", "manifest.json")
_DURABLE = "task starting, not idempotent"


class WorkflowRepair:
    """The work on one workflow, whose lock is held."""

    def __init__(self, aside: Aside, folder: WorkflowFolder) -> None:
        self._aside = aside
        self._folder = folder
        self._rebuild: dict[str, Problem] = {}
        self._share, self._ordered = ordered_there(folder.path.parents[1], folder.workflow_id)
        """What a cluster has, and by which name."""

    def run(self, found: list[Problem]) -> None:
        """Repair what was found, or put the whole workflow aside."""
        path = self._folder.path
        found = [each for each in found if each.code != "open-to-others" and Path(each.file) != path / "lock"]
        for problem in [each for each in found if each.code in ("foreign-file", "leftover")]:
            self._aside.do(problem, self._aside.put_aside)
        found = [each for each in found if each.code not in ("foreign-file", "leftover")]
        if self._lives():
            for problem in found:
                self._aside.leave(problem, "an attempt of it is still running: repair again when it has ended")
            return
        whole = [each for each in found if Path(each.file).name in _INPUTS and each.code != "no-operations"]
        whole += [each for each in found if Path(each.file) == path and each.code == "contradiction"]
        if whole:
            self._aside.do(whole[0], partial(self._aside.put_workflow_aside, self._folder))
            return
        for problem in found:
            self._repair_file(problem)
        if os.path.lexists(path / "tasks"):
            for task_id, problem in self._rebuild.items():
                self._aside.do(problem, partial(self._rebuild_task, task_id))
            self._give_logs()

    def _lives(self) -> bool:
        """Whether a process holds the log of an attempt."""
        logs = self._folder.path / "logs"
        if not logs.is_dir() or logs.is_symlink():
            return False
        found = (logs / name for name in reading.list_names(logs))
        return any(attempt_is_alive(log) for log in found if log.is_file() and not log.is_symlink())

    def _repair_file(self, problem: Problem) -> None:
        path = Path(problem.file)
        kind = path.parent.name if path.parent.parent == self._folder.path else ""
        parts = ATTEMPT_FILE.match(path.name)
        if path.parent == self._folder.path and path.name in ("tasks", "outcomes", "logs"):
            self._aside.do(problem, self._replace_folder)
        elif path.name == "workflow.json" and problem.code != "wrong-end":
            self._aside.do(problem, self._rebuild_workflow)
        elif problem.code in LEFT:
            self._aside.leave(problem)
        elif problem.code == "unknown-task" or (problem.code == "damaged" and kind in ("outcomes", "logs")):
            self._aside.do(problem, self._aside.put_aside)
        elif kind == "tasks":
            self._rebuild.setdefault(path.name.removesuffix(".json"), problem)
        elif parts is not None and problem.code in ("unknown-attempt", "contradiction"):
            last = self._known(parts["task"]).last
            if last is None or int(parts["number"]) >= last.number or problem.code == "contradiction":
                self._rebuild.setdefault(parts["task"], problem)
            else:
                self._aside.do(problem, self._aside.put_aside)
        elif os.path.lexists(path):
            self._aside.do(problem, self._aside.put_aside)
        else:
            self._aside.leave(problem)

    def _replace_folder(self, problem: Problem) -> str:
        """An empty folder in place of what is none; what it must know is rebuilt from the others."""
        moved = self._aside.put_aside(problem)
        files.make_dir(Path(problem.file))
        if Path(problem.file).name == "tasks":
            for name in ("outcomes", "logs"):
                for path in (self._folder.path / name).glob("*"):
                    if parts := ATTEMPT_FILE.match(path.name):
                        self._rebuild.setdefault(parts["task"], problem)
        return f"{moved}, and an empty one made"

    def _rebuild_workflow(self, problem: Problem) -> str:
        """A checkpoint that says: paused, and that a person decides."""
        moved = f"{self._aside.put_aside(problem)}, and " if os.path.lexists(problem.file) else ""
        submission = self._folder.submission()
        workflow_id = self._folder.workflow_id
        checkpoint = WorkflowCheckpoint(
            format=FORMAT,
            workflow_id=workflow_id,
            state=WorkflowState.PAUSED,
            operator=submission.operator,
            submitted_at=submission.submitted_at,
            boot_id=UNKNOWN_BOOT,
            reason="its checkpoint was lost, and whether it had ended or was cancelled is not known",
        )
        self._folder.save_workflow(checkpoint, "workflow ended")
        return f"{moved}rebuilt as paused; look at it, then: provisioning workflow resume {workflow_id}, or cancel"

    def _known(self, task_id: str) -> TaskCheckpoint:
        try:
            return self._folder.task(task_id)
        except Damaged:
            return TaskCheckpoint(format=FORMAT, task_id=task_id)

    def _rebuild_task(self, task_id: str, problem: Problem) -> str:
        """A checkpoint from what outcomes and logs say; recovery then decides as after any crash."""
        path = self._folder.path / "tasks" / f"{task_id}.json"
        old = self._known(task_id)
        known = {attempt.number: attempt for attempt in old.attempts if attempt.number >= 1}
        records = {number: self._folder.outcome(task_id, number) for number in {*self._numbers(task_id), *known}}
        made = [self._attempt(task_id, number, records[number], known.get(number)) for number in sorted(records)]
        moved = ""
        if os.path.lexists(path):
            moved = self._aside.put_aside(Problem(problem.code, problem.message, problem.hint, str(path)))
        checkpoint = self._held(task_id) if not made else self._concluded(task_id, made, records[made[-1].number])
        if old.attempts:
            checkpoint = msgspec.structs.replace(checkpoint, counted_from=old.counted_from)
        self._folder.save_task(checkpoint, _DURABLE)
        said = f"task {task_id} rebuilt with {len(made)} attempts, {checkpoint.state}"
        if checkpoint.held:
            said += f": a person must say whether it was done: provisioning workflow retry --task {task_id}, or cancel"
        return f"{moved}, and {said}" if moved else said

    def _numbers(self, task_id: str) -> Iterator[int]:
        """The attempts of the task of which anything is there."""
        for name in ("outcomes", "logs"):
            for each in reading.list_names(self._folder.path / name):
                parts = ATTEMPT_FILE.match(each)
                if parts and parts["task"] == task_id:
                    yield int(parts["number"])
        for name in self._ordered:
            task, _, number = name.rpartition(".")
            if task == task_id and number.isdecimal():
                yield int(number)

    def _attempt(self, task_id: str, number: int, record: OutcomeRecord | None, known: Attempt | None) -> Attempt:
        """What is known of an attempt that has ended; without an outcome it was lost."""
        if known is None:
            started = record.started_at if record else self._begun(task_id, number)
            known = Attempt(number=number, started_at=started, boot_id=UNKNOWN_BOOT, worker=new_ulid())
            if f"{task_id}.{number}" in self._ordered:
                known = msgspec.structs.replace(known, worker=self._share, executor=SLURM)
        if record is None:
            ended_at = known.ended_at or known.started_at
            return msgspec.structs.replace(known, ended_at=ended_at, outcome=Outcome.INTERRUPTED)
        return msgspec.structs.replace(
            known, ended_at=record.ended_at, outcome=record.outcome, exit_code=record.exit_code, error=record.error
        )

    def _begun(self, task_id: str, number: int) -> datetime:
        try:
            return datetime.fromtimestamp(os.stat(self._folder.log_path(task_id, number)).st_mtime, UTC)
        except OSError:
            return now()

    def _held(self, task_id: str) -> TaskCheckpoint:
        reason = "its checkpoint was lost, and nothing else is known of it"
        return TaskCheckpoint(format=FORMAT, task_id=task_id, held=True, reason=reason)

    def _concluded(self, task_id: str, made: list[Attempt], record: OutcomeRecord | None) -> TaskCheckpoint:
        """Under way, so that recovery finds out about its latest attempt; in a workflow that has ended, as it ended."""
        workflow = self._folder.workflow()
        last = made[-1]
        if workflow is None or workflow.state not in ENDED_WORKFLOWS:
            last = msgspec.structs.replace(last, ended_at=None, outcome=None, exit_code=None, error=None)
            return TaskCheckpoint(FORMAT, task_id, TaskState.RUNNING, (*made[:-1], last))
        ends = {Outcome.SUCCEEDED: TaskState.SUCCEEDED, Outcome.CANCELLED: TaskState.CANCELLED}
        state = ends.get(record.outcome, TaskState.FAILED) if record else TaskState.FAILED
        return TaskCheckpoint(FORMAT, task_id, state, tuple(made))

    def _give_logs(self) -> None:
        """An attempt under way without its log would count as never begun, and be made again."""
        for name in reading.list_names(self._folder.path / "tasks"):
            checkpoint = self._known(name.removesuffix(".json"))
            last = checkpoint.last
            if checkpoint.state is TaskState.RUNNING and last is not None:
                log = self._folder.log_path(checkpoint.task_id, last.number)
                if not os.path.lexists(log):
                    files.write_new(log, b"", durable=True)
