"""What a schedule must say, worked out from scratch at every question: slow and plainly right."""

from __future__ import annotations

from provisioning.core.states import TaskState
from provisioning.core.workflow import TaskCheckpoint, Workflow

ENDED = {"succeeded", "failed", "skipped", "cancelled"}


class Reference:
    """A workflow and the latest checkpoint of each of its tasks; everything else is derived."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self.tasks = {task.id: task for task in workflow.tasks}
        self.checkpoints: dict[str, TaskCheckpoint] = {}

    def learn(self, checkpoint: TaskCheckpoint) -> None:
        """A task's checkpoint has changed."""
        self.checkpoints[checkpoint.task_id] = checkpoint

    def states(self) -> dict[str, str]:
        """The state of every task: its checkpoint's, or skipped where something it depends on did not succeed."""
        found = {task_id: str(self._said(task_id)) for task_id in self.tasks}
        while True:
            skipped = [
                task_id
                for task_id, state in found.items()
                if state == "pending"
                and any(found[other] in ENDED - {"succeeded"} for other in self.named(self.tasks[task_id].depends_on))
            ]
            if not skipped:
                return found
            found |= dict.fromkeys(skipped, "skipped")

    def may_start(self, task_id: str, boottime: float) -> bool:
        """Whether only slots and max_parallel decide when the task starts."""
        states, task, checkpoint = self.states(), self.tasks[task_id], self.checkpoints.get(task_id)
        if states[task_id] != "pending":
            return False
        if any(states[other] != "succeeded" for other in self.named(task.depends_on)):
            return False
        if any(states[other] not in ENDED for other in self.named(task.after)):
            return False
        if checkpoint and checkpoint.held:
            return False
        if checkpoint and checkpoint.backoff and checkpoint.backoff.boottime > boottime:
            return False
        stopped = self.workflow.on_failure == "stop" and "failed" in states.values()
        begun = checkpoint is not None and any(a.number >= checkpoint.counted_from for a in checkpoint.attempts)
        return begun or not stopped

    def named(self, names: tuple[str, ...]) -> list[str]:
        """The tasks of these names; the name of a group is that of all its tasks."""
        return [task_id for task_id in self.tasks for name in names if f"{task_id}.".startswith(f"{name}.")]

    def _said(self, task_id: str) -> TaskState:
        checkpoint = self.checkpoints.get(task_id)
        return checkpoint.state if checkpoint else TaskState.PENDING
