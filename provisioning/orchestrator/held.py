"""A workflow that this process holds: its lock, its files, and what is known of its tasks."""

from __future__ import annotations

import contextlib
from datetime import datetime
from heapq import nsmallest
from math import inf
from typing import Any

import msgspec

from provisioning.core import attempts
from provisioning.core.graph import contradictions
from provisioning.core.identifiers import LOCAL, Executing
from provisioning.core.large import LARGE_TASKS, SUMMED_TASKS, Summary
from provisioning.core.rollback import Undoing, counted, is_undo, undo_tasks
from provisioning.core.scheduler import Now, Schedule
from provisioning.core.states import TaskEvent, TaskState, WorkflowEvent, WorkflowState
from provisioning.core.workflow import (
    FORMAT,
    Plan,
    Task,
    TaskCheckpoint,
    WorkflowCheckpoint,
    apply_task,
    apply_workflow,
)
from provisioning.errors import SpoolUnusable
from provisioning.execution.executor import Key
from provisioning.orchestrator.claimed import is_at_rest
from provisioning.storage.active import unname_active
from provisioning.storage.checkpoint import Damaged, WorkflowFolder
from provisioning.storage.durations import learn
from provisioning.storage.gate import Gate
from provisioning.storage.lock import Lock

SUMMARY_SECONDS = 1.0
"""Between two summaries of a large workflow."""


class Held:
    """The only writer of one workflow's checkpoints, while it has the lock."""

    def __init__(
        self, lock: Lock, folder: WorkflowFolder, plan: Plan, checkpoint: WorkflowCheckpoint, now: Now
    ) -> None:
        self._lock = lock
        self.folder = folder
        self.plan = plan
        self.checkpoint = checkpoint
        self.workflow_id = plan.workflow_id
        self.tasks = {task.id: task for task in plan.workflow.tasks} | undo_tasks(plan)
        """All that can be attempted, by id: the tasks, and what undoes them."""
        self.checkpoints = {checkpoint.task_id: checkpoint for checkpoint in folder.tasks()}
        self._running = {c.task_id for c in self.checkpoints.values() if c.state is TaskState.RUNNING}
        self._is_large = len(plan.workflow.tasks) > LARGE_TASKS
        self._sum_up_at = inf
        """The boottime at which the summary is to be written; infinite while it is as it should be."""
        self._summed_at = -inf
        self._refuse_contradictions()
        self.watched: set[Key] = set()
        """Attempts that no worker of ours runs: adopted ones, and those whose news could not be recorded."""
        self.ending: dict[Key, float] = {}
        """Attempts without a worker that were told to end, and the boottime at which they are made to."""
        self.stopping = False
        """Whether this process has been told to end what it runs: such attempts are not counted against their task."""
        self.gate: Gate | None = None
        self.reschedule(now)

    def _refuse_contradictions(self) -> None:
        """Damaged where plan and checkpoints, each whole, do not go together."""
        for said in contradictions(self.plan):
            raise Damaged(self.folder.path / "plan.json", said)
        for task_id in self.checkpoints:
            if task_id not in self.tasks:
                raise Damaged(self.folder.path / "tasks" / f"{task_id}.json", "the plan has no such task")

    def reschedule(self, now: Now) -> None:
        """Make the schedule anew from the checkpoints."""
        self._failed = {c.task_id for c in self.checkpoints.values() if c.state is TaskState.FAILED}
        self._held = {checkpoint.task_id for checkpoint in self.checkpoints.values() if checkpoint.held}
        self.forward = Schedule(
            self.plan.workflow, (c for c in self.checkpoints.values() if not is_undo(c.task_id)), now
        )
        self.schedule = self.forward
        if self.checkpoint.state is WorkflowState.ROLLING_BACK:
            self.schedule = Undoing(self.plan, self.checkpoints, self.checkpoint.rollback, now)
        else:
            self.schedule.rollback_asked = self.checkpoint.rollback is not None
        self.schedule.paused = self.checkpoint.state is WorkflowState.PAUSED
        self.schedule.cancelling = self.checkpoint.cancelling
        self._sum_up_at = now.boottime

    def task_checkpoint(self, task_id: str) -> TaskCheckpoint:
        """What is known of a task."""
        return self.checkpoints.get(task_id) or TaskCheckpoint(format=FORMAT, task_id=task_id)

    @property
    def is_running(self) -> bool:
        """Whether a task has an attempt under way."""
        return bool(self._running)

    def running(self) -> list[TaskCheckpoint]:
        """The tasks that have an attempt under way."""
        return [self.checkpoints[task_id] for task_id in sorted(self._running)]

    def likely(self, most: int) -> list[str]:
        """A guess at the tasks that start next."""
        return self.schedule.next_likely(self._running, most)

    def key(self, checkpoint: TaskCheckpoint) -> Key:
        """The key of a task's latest attempt."""
        return Key(self.workflow_id, checkpoint.task_id, checkpoint.attempts[-1].number)

    def next_key(self, task_id: str) -> Key:
        """The key of the attempt that a task would make now."""
        made = self.task_checkpoint(task_id).attempts
        return Key(self.workflow_id, task_id, made[-1].number + 1 if made else 1)

    def start_kind(self, task: Task, executor: Executing = LOCAL) -> str:
        """How durable the record of a start must be, by `files.DURABLE`."""
        if self.checkpoint.host_crashed:
            return "task starting, after a crash of the host"
        if executor != LOCAL:
            return "task starting on a cluster"
        return "task" if self.plan.operations[task.operation].idempotent else "task starting, not idempotent"

    def start(
        self, task_id: str, worker: str, now: Now, params: dict[str, Any] | None = None, *, executor: Executing = LOCAL
    ) -> None:
        """Record that the task's next attempt is starting in that worker; `params` are what its references mean."""
        after = attempts.started(self.task_checkpoint(task_id), now, worker, params, executor=executor)
        self.folder.save_task(after, self.start_kind(self.tasks[task_id], executor))
        self.settle(after, now)

    def record(self, checkpoint: TaskCheckpoint, now: Now) -> None:
        """Save a task's checkpoint, tell the schedule, and hold the workflow for a person where one must decide."""
        self.folder.save_task(checkpoint)
        self.settle(checkpoint, now)

    def settle(self, checkpoint: TaskCheckpoint, now: Now) -> None:
        """Take note of a task's checkpoint that is saved already."""
        self.checkpoints[checkpoint.task_id] = checkpoint
        if checkpoint.state is TaskState.RUNNING:
            self._running.add(checkpoint.task_id)
        else:
            self._running.discard(checkpoint.task_id)
        if checkpoint.state is TaskState.FAILED:
            self._failed.add(checkpoint.task_id)
        self._sum_up_at = min(self._sum_up_at, max(now.boottime, self._summed_at + SUMMARY_SECONDS))
        self.schedule.settle(checkpoint, now)
        last = checkpoint.last
        self.tell(
            now.wall,
            "task",
            task_id=checkpoint.task_id,
            state=str(checkpoint.state),
            attempt=last.number if last else None,
            outcome=str(last.outcome) if last and last.outcome else None,
            reason=checkpoint.reason or None,
        )
        if checkpoint.held:
            self._held.add(checkpoint.task_id)
            self.wait_for_person(now)

    def tend(self, now: Now) -> None:
        """Do what may be due although nothing has happened: what a crash has left of a pause, and the summary."""
        self.wait_for_person(now)
        if now.boottime >= self._sum_up_at:
            self._sum_up(now.boottime)

    def next_due(self) -> float | None:
        """The boottime at which a backoff ends, the workflow may begin, or its summary is to be written."""
        due = self.schedule.next_due()
        return min(self._sum_up_at, inf if due is None else due) if self._is_large else due

    def _sum_up(self, boottime: float) -> None:
        """Write what a look at a large workflow needs: it is read instead of 100,000 files."""
        self._sum_up_at, self._summed_at = inf, boottime
        if not self._is_large:
            return
        kinds = (self._held, self._failed, self._running)
        named = [task_id for kind in kinds for task_id in nsmallest(SUMMED_TASKS, kind)]
        operations = {task_id: self.tasks[task_id].operation for task_id in named}
        self.folder.save_summary(Summary(FORMAT, self._counts(), operations))

    def _counts(self) -> dict[str, int]:
        """Tasks by state."""
        if self.schedule is self.forward:
            return self.forward.counts()
        return counted(self.forward.states_by_task(), self.checkpoints)

    def wait_for_person(self, now: Now) -> None:
        """Pause the workflow while a task of it is held. The record of the task may be all that a crash has left."""
        if self._held and self.checkpoint.state is WorkflowState.RUNNING and not self.checkpoint.cancelling:
            if self.gate:
                self.gate.waiting(self.workflow_id, self.checkpoint.operator, min(self._held))
            self.change(WorkflowEvent.PAUSED, now, reason=f"waiting for a person: task {min(self._held)}")

    def change(self, event: WorkflowEvent, now: Now, kind: str = "workflow", **changes: Any) -> None:
        """Apply an event to the workflow and save it."""
        self.save(apply_workflow(self.checkpoint, event, **changes), kind)
        self.schedule.paused = self.checkpoint.state is WorkflowState.PAUSED
        self.tell(now.wall, "workflow", state=str(self.checkpoint.state), reason=self.checkpoint.reason or None)

    def save(self, checkpoint: WorkflowCheckpoint, kind: str = "workflow") -> None:
        """Replace the workflow's checkpoint."""
        checkpoint = msgspec.structs.replace(checkpoint, counts=self._counts())
        self.folder.save_workflow(checkpoint, kind)
        self.checkpoint = checkpoint

    def skip(self, task_id: str, reason: str, now: Now) -> None:
        """Record that a task is not to be done."""
        self.record(apply_task(self.task_checkpoint(task_id), TaskEvent.SKIPPED, reason=reason), now)

    def end(self, event: WorkflowEvent, reason: str, now: Now) -> None:
        """Record the workflow's end, or that it is rolled back from now on.

        What never started is skipped, or cancelled with it.
        """
        if event is WorkflowEvent.ROLLING_BACK:
            self.change(event, now, "rollback begins", reason=reason or self.checkpoint.reason, ended_at=None)
            self.reschedule(now)
            return
        cancelled = event is WorkflowEvent.CANCELLED
        self.forward.close(TaskState.CANCELLED if cancelled else TaskState.SKIPPED, reason)
        kept = self.checkpoint.reason if cancelled and self.checkpoint.cancelling else reason
        if self.gate:
            self.gate.ending(self.workflow_id, self.checkpoint.operator, str(event), kept)
        self.change(event, now, "workflow ended", ended_at=now.wall, reason=kept, cancelling=False)
        self._sum_up_at = now.boottime
        self._learn()

    def tell(self, at: datetime, event: str, **facts: Any) -> None:
        """Add to the events that people and views read."""
        said = {name: fact for name, fact in facts.items() if fact is not None}
        self.folder.append_event({"at": at, "event": event, **said})

    def _learn(self) -> None:
        """Remember how long its tasks took, for the next workflow of its name."""
        took = {}
        for checkpoint in self.checkpoints.values():
            last = checkpoint.last
            if checkpoint.state is TaskState.SUCCEEDED and last is not None and last.ended_at and not last.probe:
                took[checkpoint.task_id] = max(0.0, (last.ended_at - last.started_at).total_seconds())
        learn(self.folder.path.parents[1], self.plan.workflow, took, self.folder.scratch)

    def release(self) -> None:
        """Let the workflow go: it belongs to whoever takes its lock next."""
        try:
            if self._sum_up_at < inf:
                self._sum_up(self._summed_at)
            if is_at_rest(self.checkpoint, running=bool(self._running)) and not self.folder.in_doubt:
                with contextlib.suppress(SpoolUnusable):  # a name that is left costs one look
                    unname_active(self.folder.path.parents[1], self.workflow_id)
        finally:
            self.folder.close()
            self._lock.release()
