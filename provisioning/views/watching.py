"""A workflow while it goes on: what is new since the last look, at the cost of what is new and not of all its tasks.

The events say which tasks to look at, and nothing else: they are a view, and a full disk loses some. So all checkpoints
are looked through as well, after every change of the workflow itself, and otherwise as often as takes a small share of
the time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from provisioning.clock import boot_id, boottime, now
from provisioning.core.estimate import expected_seconds, seconds_left
from provisioning.core.scheduler import Now, Schedule
from provisioning.core.states import ENDED_TASKS, TaskState, WorkflowState
from provisioning.core.workflow import Plan, TaskCheckpoint, WorkflowCheckpoint
from provisioning.storage import logs
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.views.status import BACK, Page, WorkflowView, is_held, scheduled, shown_state, task_page

SWEEP_SECONDS = 1.0
"""At least so long is between two looks at all checkpoints, while only tasks change …"""
SWEEP_SHARE = 20
"""… and at least so many times as long as the last one took."""
SETTLED_SECONDS = 0.05
"""A folder that was changed less than so long ago may change again without showing it: clocks of files are coarse."""
ESTIMATE_SHARE = 50
_EVENT_BYTES = 1 << 20
_LINE_BYTES = 4096
"""The last line of a log is looked for in its last bytes."""


class WatchedWorkflow(WorkflowView):
    """One workflow, looked at again and again by whoever shows its progress."""

    def __init__(self, folder: WorkflowFolder) -> None:
        super().__init__(folder)
        self._checkpoint: WorkflowCheckpoint | None = None
        self._schedule: Schedule | None = None
        self._shown: list[TaskState] = []
        """The states that the last look has shown."""
        self._events = 0
        """So many bytes of the events have been heeded."""
        self._changed_at = -1
        """When the folder of checkpoints was last changed, as far as its changes are known; in ns."""
        self._sweep_at = 0.0
        self._estimate_at = 0.0
        self._ends_at: datetime | None = None
        self._measured: dict[str, tuple[int, float]] = {}

    def news(self, slots: int = 1) -> Page:
        """The page with those tasks alone that are another than at the last look; with all of them at the first.

        `ends_at` is the instant at which it will probably have ended, with so many slots, or None. Of a workflow that
        is being rolled back, or was, all tasks are in it.
        """
        checkpoint = self.folder.workflow()  # before the tasks: what it says has ended, they say too
        self._plan = self._plan or self.folder.plan()
        if checkpoint is None or self._plan is None:
            return {**self.glance(), "ends_at": None}
        head = {**self.head(), **self.known(checkpoint), "tasks_left_out": 0}
        changed = self._look(self._plan, checkpoint)
        if checkpoint.state in BACK:
            return {**self._whole(head, self._plan, checkpoint, self._known()), "ends_at": None}
        assert self._schedule is not None
        known = self._seen
        tasks = self._plan.workflow.tasks
        pages = [
            task_page(tasks[i], self._schedule, known[tasks[i].id][1] if tasks[i].id in known else None)
            for i in sorted(changed)
        ]
        held = self._held_ids(checkpoint)
        ends_at = self._estimated(self._plan, self._schedule, checkpoint, slots)
        return {**head, "held": held, "counts": self._schedule.counts(), "tasks": pages, "ends_at": ends_at}

    def last_line(self, task_id: str, attempt: int) -> str:
        """The last line of that attempt's log so far, as it is; empty where there is none."""
        said = logs.tail_bytes(self.folder.log_path(task_id, attempt), _LINE_BYTES)
        lines = said.decode(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")

    # What has changed

    def _look(self, plan: Plan, checkpoint: WorkflowCheckpoint) -> set[int]:
        """Take note of the checkpoints that are new; the numbers of the tasks that are to be shown again."""
        before, self._checkpoint = self._checkpoint, checkpoint
        turned = before is None or _standing(before) != _standing(checkpoint)
        told = self._told()
        changed = self._sweep() if turned or self._is_due() else self._read(told)
        if self._schedule is None or turned or self._reopens(changed):
            ids = {task.id for task in plan.workflow.tasks}
            known = [each for task_id, each in self._known().items() if task_id in ids]
            self._schedule = scheduled(plan.workflow, checkpoint, known)
        else:
            this = Now(now(), boottime(), boot_id())
            for each in changed:
                self._schedule.settle(each, this)
        self._measure(plan, self._schedule, changed)
        states = self._schedule.states[: len(plan.workflow.tasks)]
        shown, self._shown = self._shown, states
        index = self._schedule.index
        if not shown:
            return set(range(len(states)))
        own = {index[each.task_id] for each in changed if each.task_id in index}
        return own | {i for i, (old, new) in enumerate(zip(shown, states, strict=True)) if old is not new}

    def _known(self) -> dict[str, TaskCheckpoint]:
        return {task_id: checkpoint for task_id, (_, checkpoint) in self._seen.items()}

    def _is_due(self) -> bool:
        """Whether all checkpoints are to be looked through: there are changes, and it is time."""
        return self._tasks_changed_at() != self._changed_at and time.monotonic() >= self._sweep_at

    def _tasks_changed_at(self) -> int:
        """When a checkpoint was put into the folder last; 0 while it is not there, right after the claim."""
        try:
            return os.stat(self.folder.path / "tasks").st_mtime_ns
        except FileNotFoundError:
            return 0

    def _sweep(self) -> list[TaskCheckpoint]:
        """Look through all checkpoints; those that are new."""
        begin, before = time.monotonic(), dict(self._seen)
        changed_at = self._tasks_changed_at()
        settled = time.time_ns() - changed_at > SETTLED_SECONDS * 1e9
        self._checkpoints()
        self._changed_at = changed_at if settled else -1
        end = time.monotonic()
        self._sweep_at = end + max(SWEEP_SECONDS, SWEEP_SHARE * (end - begin))
        return [each for task_id, (mark, each) in self._seen.items() if before.get(task_id, (None,))[0] != mark]

    def _read(self, task_ids: Iterable[str]) -> list[TaskCheckpoint]:
        """Look at the checkpoints of these tasks; those that are new."""
        found = []
        for task_id in task_ids:
            before = self._seen.get(task_id)
            try:
                self._look_at(task_id, self._seen)
            except FileNotFoundError:
                continue
            if self._seen[task_id] is not before:
                found.append(self._seen[task_id][1])
        return found

    def _told(self) -> set[str]:
        """The tasks of which there are new events."""
        path = self.folder.path / "events.jsonl"
        if self._schedule is None:  # all tasks are about to be looked at
            self._events = os.stat(path).st_size if path.exists() else 0
            return set()
        data = logs.read_from(path, self._events, _EVENT_BYTES)
        whole = data[: data.rfind(b"\n") + 1]
        self._events += len(whole)
        return {task_id for task_id in map(_task_of, whole.splitlines()) if task_id in self._schedule.index}

    def _reopens(self, changed: list[TaskCheckpoint]) -> bool:
        """Whether a task that had ended goes on: then what followed from its end does not."""
        assert self._schedule is not None
        index, states = self._schedule.index, self._schedule.states
        known = ((states[index[each.task_id]], each.state) for each in changed if each.task_id in index)
        return any(state in ENDED_TASKS and state is not now_is for state, now_is in known)

    def _held_ids(self, checkpoint: WorkflowCheckpoint) -> list[str]:
        """The tasks that wait for a person; only a workflow that is about to be paused has one."""
        if checkpoint.state not in (WorkflowState.PAUSED, WorkflowState.RUNNING) or self._schedule is None:
            return []
        if self._schedule.waits_for_person() is None:
            return []
        return [task_id for task_id, (_, each) in self._seen.items() if is_held(each, checkpoint)]

    # When it ends

    def _measure(self, plan: Plan, schedule: Schedule, changed: list[TaskCheckpoint]) -> None:
        """Remember how long what has succeeded took."""
        for each in changed:
            last = each.last
            if each.state is TaskState.SUCCEEDED and last and last.ended_at and each.task_id in schedule.index:
                operation = plan.workflow.tasks[schedule.index[each.task_id]].operation
                count, total = self._measured.get(operation, (0, 0.0))
                self._measured[operation] = count + 1, total + (last.ended_at - last.started_at).total_seconds()

    def _estimated(self, plan: Plan, schedule: Schedule, checkpoint: WorkflowCheckpoint, slots: int) -> datetime | None:
        """When the workflow will probably have ended. It is asked anew once in a while: it costs all tasks."""
        if shown_state(checkpoint) != WorkflowState.RUNNING or checkpoint.cancelling:
            return None  # or nobody runs it
        begin = time.monotonic()
        if begin >= self._estimate_at:
            tasks, at = plan.workflow.tasks, now()
            seconds = expected_seconds(
                [task.expected_seconds for task in tasks], [task.operation for task in tasks], self._measured
            )
            room = min(schedule.max_parallel, max(slots, schedule.running))
            elapsed = self._elapsed(schedule, at)
            left = seconds_left(schedule.graph, schedule.states, seconds, elapsed, room) if seconds else None
            self._ends_at = None if left is None else datetime.fromtimestamp(at.timestamp() + left, at.tzinfo)
            end = time.monotonic()
            self._estimate_at = end + max(1.0, ESTIMATE_SHARE * (end - begin))
        return self._ends_at

    def _elapsed(self, schedule: Schedule, at: datetime) -> dict[int, float]:
        """For how many seconds each running task has run."""
        running = (i for i, state in enumerate(self._shown) if state is TaskState.RUNNING)
        found = {}
        for i in running:
            last = self._seen[schedule.tasks[i].id][1].last
            if last is not None:
                found[i] = (at - last.started_at).total_seconds()
        return found


def _standing(checkpoint: WorkflowCheckpoint) -> object:
    """What of a workflow's checkpoint decides about all of its tasks."""
    return checkpoint.state, checkpoint.cancelling, len(checkpoint.applied), checkpoint.rollback


def _task_of(line: bytes) -> str:
    """The task of which an event tells; empty where it tells of none."""
    try:
        event: Any = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    task_id = event.get("task_id") if isinstance(event, dict) else None
    return task_id if isinstance(task_id, str) else ""
