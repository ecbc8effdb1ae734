"""What a scheduler must do, worked out from scratch at every question: slow and plainly right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from provisioning.core.workflow import TaskCheckpoint, Workflow
from provisioning.storage.limits import Wanted

ENDED = {"succeeded", "failed", "skipped", "cancelled"}


class Reference:
    """A workflow and the latest checkpoint of each of its tasks; everything else is derived."""

    def __init__(self, workflow: Workflow, wanted: Mapping[str, Sequence[Wanted]] | None = None) -> None:
        self.workflow = workflow
        self.tasks = {task.id: task for task in workflow.tasks}
        self.depends_on = {task.id: self.named(task.depends_on) for task in workflow.tasks}
        self.after = {task.id: self.named(task.after) for task in workflow.tasks}
        self.wanted = wanted or {}
        self.checkpoints: dict[str, TaskCheckpoint] = {}
        self.results: dict[str, Any] = {}
        self.line: list[str] = []
        """Who was told to wait for a target or for room in a group, in that order."""
        self.paused = self.cancelling = self.rollback_asked = False
        self._states = self._worked_out()

    def learn(self, checkpoint: TaskCheckpoint) -> None:
        """A task's checkpoint has changed."""
        self.checkpoints[checkpoint.task_id] = checkpoint
        self.line = [task_id for task_id in self.line if task_id != checkpoint.task_id]
        self._states = self._worked_out()

    def states(self) -> dict[str, str]:
        """The state of every task: its checkpoint's, or skipped where something it depends on did not succeed."""
        return self._states

    def _worked_out(self) -> dict[str, str]:
        found = {task_id: str(known.state) for task_id, known in self.checkpoints.items()}
        found = {task_id: found.get(task_id, "pending") for task_id in self.tasks}
        for _ in self.tasks:
            found |= {
                task_id: "skipped"
                for task_id, state in found.items()
                if state == "pending"
                and any(found[other] in ENDED - {"succeeded"} for other in self.depends_on[task_id])
            }
        return found

    def may_start(self, task_id: str, boottime: float) -> bool:
        """Whether only slots, max_parallel, targets and groups decide when the task starts."""
        states, checkpoint = self.states(), self.checkpoints.get(task_id)
        if states[task_id] != "pending" or self.paused or self.cancelling or self.rollback_asked:
            return False
        if any(states[other] != "succeeded" for other in self.depends_on[task_id]):
            return False
        if any(states[other] not in ENDED for other in self.after[task_id]):
            return False
        if checkpoint and (checkpoint.held or (checkpoint.backoff and checkpoint.backoff.boottime > boottime)):
            return False
        begun = checkpoint is not None and any(a.number >= checkpoint.counted_from for a in checkpoint.attempts)
        return begun or self.policies() <= {"continue"}

    def policies(self) -> set[str]:
        """What is to follow from the tasks that have failed."""
        failed = (self.tasks[task_id] for task_id, state in self.states().items() if state == "failed")
        return {task.on_failure or self.workflow.on_failure for task in failed}

    def is_out(self, task_id: str) -> bool:
        """Whether its condition says that the task is not to be done."""
        when = self.tasks[task_id].when
        return when is not None and self.results[when.task][when.path.removeprefix("result.")] is not when.equals

    def is_blocked(self, task_id: str) -> bool:
        """Whether a target or a group that the task wants is taken, or somebody has waited for it before."""
        running = [other for other, state in self.states().items() if state == "running"]
        waiting = self.line[: self.line.index(task_id)] if task_id in self.line else self.line
        for each in self.wanted.get(task_id, ()):
            held = [one for other in running for one in self.wanted.get(other, ()) if one.name == each.name]
            full = len(held) >= each.room if each.exclusive else any(one.exclusive for one in held)
            if full or any(one.name == each.name for other in waiting for one in self.wanted.get(other, ())):
                return True
        return False

    def look_at_line(self) -> None:
        """Whoever is the first in a line and does not want to start now gives up the place."""
        for task_id in list(self.line):
            before = {each.name for other in self.line[: self.line.index(task_id)] for each in self.wanted[other]}
            if {each.name for each in self.wanted[task_id]} - before and not self.may_start(task_id, inf):
                self.line.remove(task_id)

    def end(self) -> str | None:
        """How it has ended, or that it is rolled back now; None while something runs, can start or needs a person."""
        states = self.states()
        if "running" in states.values():
            return None
        if self.cancelling or self.rollback_asked:
            return "cancelled" if self.cancelling else "rolling_back"
        held = [name for name, known in self.checkpoints.items() if known.held and states[name] == "pending"]
        if held or self.paused or any(self.may_start(task_id, inf) for task_id in states):
            return None
        if not {"failed", "cancelled"} & set(states.values()):
            return "succeeded"
        return "rolling_back" if "rollback" in self.policies() else "failed"

    def named(self, names: tuple[str, ...]) -> list[str]:
        """The tasks of these names; the name of a group is that of all its tasks."""
        return [task_id for task_id in self.tasks for name in names if f"{task_id}.".startswith(f"{name}.")]
