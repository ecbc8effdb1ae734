"""Which task of a workflow starts next, what can never start, when it has ended. An event costs its edges."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from provisioning.core.graph import Graph, expected
from provisioning.core.states import ENDED_TASKS, TaskState, WorkflowEvent
from provisioning.core.workflow import Backoff, Task, TaskCheckpoint, Workflow

GLANCE = 64
"""Of so many that wait for a task it is guessed whether they start next."""


class Now(NamedTuple):
    """One instant on both clocks."""

    wall: datetime
    boottime: float
    boot_id: str


def due(backoff: Backoff, now: Now) -> float:
    """The boottime from which the next attempt may start.

    A delay that began in an earlier boot is measured by the wall clock.
    """
    if backoff.boot_id == now.boot_id:
        return backoff.boottime
    return now.boottime + max(0.0, (backoff.at - now.wall).total_seconds())


class Schedule:
    """One workflow's tasks by index: their states, what each still waits for, and what is ready.

    Behind the tasks are the groups that somebody waits for: nodes that end by themselves, and are none of the tasks.
    """

    def __init__(
        self,
        workflow: Workflow,
        checkpoints: Iterable[TaskCheckpoint],
        now: Now,
        *,
        graph: Graph | None = None,
        urgency: list[float] | None = None,
    ) -> None:
        self.tasks = workflow.tasks
        self.max_parallel = workflow.max_parallel or len(workflow.tasks)
        self._on_failure = workflow.on_failure
        self._policies: set[str] = set()
        """What is to follow from the tasks that have failed."""
        self.graph = graph or Graph(self.tasks)
        self.index = self.graph.index
        self.states = [TaskState.PENDING] * len(self.graph.names)
        self.reasons: dict[int, str] = {}
        self.paused = False
        self.cancelling = False
        self.rollback_asked = False
        self.running = 0
        self._opens: float | None = None
        self._closes: float | None = None
        if workflow.not_before is not None:
            self._opens = now.boottime + (workflow.not_before - now.wall).total_seconds()
        self._early = self._opens is not None and self._opens > now.boottime
        """Whether it was not time yet when this was made: for those who look."""
        if workflow.expires_at is not None:
            self._closes = now.boottime + (workflow.expires_at - now.wall).total_seconds()
        self._counts = Counter({TaskState.PENDING: len(self.tasks)})
        self._begun: set[int] = set()
        self._held: set[int] = set()
        self._doomed: dict[int, str] = {}
        """Running tasks that may not be tried again, and why: what they depend on was done again, and failed."""
        self._waking: dict[int, float] = {}
        """The tasks in their backoff, and the boottime at which it ends."""
        self._parked: dict[int, str] = {}
        """The tasks that wait for a target or for room in a group, and for which."""
        self._ready: list[tuple[float, int]] = []
        """A heap; an entry that has become untrue since is left in it and passed over."""
        self._delayed: list[tuple[float, int]] = []
        self._waits = [len(edges) for edges in self.graph.waits]
        self._dependents = self.graph.dependents
        self._order = self.graph.order
        self._remaining = urgency or self._longest_paths()
        for i, waits in enumerate(self._waits[: len(self.tasks)]):
            if not waits:
                self._make_ready(i)
        loaded = {self.index[checkpoint.task_id]: checkpoint for checkpoint in checkpoints}
        self._touched = bool(loaded)
        """Whether a task was ever started."""
        self._load(loaded, now)

    def _load(self, loaded: dict[int, TaskCheckpoint], now: Now) -> None:
        """Take over what is known of the tasks, first all of it and only then what follows from what has ended."""
        ended = [(i, "") for i in range(len(self.tasks), len(self.states)) if not self._waits[i]]
        for i, _ in ended:
            self._set(i, TaskState.SUCCEEDED)
        for i, checkpoint in sorted(loaded.items()):
            self._note(i, checkpoint)
            if checkpoint.state in ENDED_TASKS:
                self._set(i, checkpoint.state)
                ended.append((i, checkpoint.reason))
            else:
                self._go_on(i, checkpoint, now)
        for i, reason in ended:
            self._follow(i, reason)

    def _longest_paths(self) -> list[float]:
        """Expected seconds on the longest path from each node to the end, itself included.

        A task of which nothing is known counts as one of the mean of the others.
        """
        longest = expected(self.tasks) + [0.0] * (len(self.states) - len(self.tasks))
        for i in reversed(self._order):
            behind = 0.0
            for edge in self._dependents[i]:
                behind = max(behind, longest[edge if edge >= 0 else ~edge])
            longest[i] += behind
        return longest

    # Facts

    def settle(self, checkpoint: TaskCheckpoint, now: Now) -> None:
        """Take note of a task's new checkpoint."""
        i = self.index.get(checkpoint.task_id)
        if i is None or self.states[i] in ENDED_TASKS:
            return
        self._note(i, checkpoint)
        if checkpoint.state in ENDED_TASKS:
            self._set(i, checkpoint.state)
            self._follow(i, checkpoint.reason)
        else:
            self._go_on(i, checkpoint, now)

    def _note(self, i: int, checkpoint: TaskCheckpoint) -> None:
        self._held.discard(i)
        self._waking.pop(i, None)
        self._parked.pop(i, None)
        if checkpoint.attempts and checkpoint.attempts[-1].number >= checkpoint.counted_from:
            self._begun.add(i)

    def _go_on(self, i: int, checkpoint: TaskCheckpoint, now: Now) -> None:
        """Take over a task that has not ended."""
        self._set(i, checkpoint.state)
        if checkpoint.state is not TaskState.PENDING:
            return
        if i in self._doomed:
            self._set(i, TaskState.SKIPPED)
            self._follow(i, self._doomed[i])
        elif checkpoint.held:
            self._held.add(i)
            self.reasons[i] = checkpoint.reason
        elif checkpoint.backoff:
            self._waking[i] = due(checkpoint.backoff, now)
            heapq.heappush(self._delayed, (self._waking[i], i))
        elif not self._waits[i]:
            self._make_ready(i)

    def _set(self, i: int, state: TaskState) -> None:
        old, self.states[i] = self.states[i], state
        if i >= len(self.tasks):
            return
        self.running += (state is TaskState.RUNNING) - (old is TaskState.RUNNING)
        self._counts[old] -= 1
        self._counts[state] += 1
        if state is TaskState.FAILED:
            self._policies.add(self.tasks[i].on_failure or self._on_failure)

    def _make_ready(self, i: int) -> None:
        heapq.heappush(self._ready, (-self._remaining[i], i))

    def _follow(self, i: int, reason: str) -> None:
        """Do what follows from the end of a task for those that wait for it, directly or through skipped ones."""
        ended = [(i, reason)]
        while ended:
            i, reason = ended.pop()
            state = self.states[i]
            if reason:
                self.reasons[i] = reason
            for edge in self._dependents[i]:
                j = edge if edge >= 0 else ~edge
                self._waits[j] -= 1
                if self.states[j] in ENDED_TASKS:
                    continue
                if state is not TaskState.SUCCEEDED and edge >= 0:
                    # A group is skipped for one of its tasks, and what waits for it then waits for that one.
                    because = f"{self.graph.names[i]} {state}" if i < len(self.tasks) else reason
                    if self.states[j] is TaskState.RUNNING:
                        self._doomed[j] = because
                        continue
                    self._set(j, TaskState.SKIPPED)
                    self._held.discard(j)
                    ended.append((j, because))
                elif not self._waits[j] and j < len(self.tasks):
                    self._make_ready(j)
                elif not self._waits[j]:
                    self._set(j, TaskState.SUCCEEDED)
                    ended.append((j, ""))

    # Decisions

    def _may_start(self, i: int) -> bool:
        """Whether nothing but its backoff keeps the task from starting."""
        waits = self.states[i] is not TaskState.PENDING or self._waits[i] or i in self._held
        return not waits and (not self.stopped or i in self._begun)

    @property
    def held_up(self) -> bool:
        """Whether nothing starts, by what was asked."""
        return self.paused or self.cancelling or self.rollback_asked

    @property
    def stopped(self) -> bool:
        """A task has failed and the policy starts no others; what has begun is finished."""
        return "stop" in self._policies or "rollback" in self._policies

    def _wake(self, boottime: float) -> None:
        while self._delayed and self._delayed[0][0] <= boottime:
            at, i = heapq.heappop(self._delayed)
            if self._waking.get(i) == at:
                del self._waking[i]
                self._make_ready(i)
        while self._ready and (self._ready[0][1] in self._waking or not self._may_start(self._ready[0][1])):
            heapq.heappop(self._ready)

    def can_start(self, boottime: float) -> bool:
        """Whether a task would start if there were a slot."""
        if self.held_up or self.running >= self.max_parallel:
            return False
        if (self._opens is not None and boottime < self._opens) or self._expired(boottime):
            return False
        self._wake(boottime)
        return bool(self._ready)

    def _expired(self, boottime: float) -> bool:
        """Whether the workflow's time is over and nothing of it was ever started."""
        return self._closes is not None and boottime >= self._closes and not self._touched

    def start_next(self) -> Task:
        """Take the ready task with the longest path before it; `can_start` said that there is one."""
        i = heapq.heappop(self._ready)[1]
        self._touched = True
        self._set(i, TaskState.RUNNING)
        return self.tasks[i]

    def park(self, task_id: str, reason: str) -> None:
        """A task that was decided to start waits for something that others have; `unpark` makes it ready again."""
        i = self.index[task_id]
        self._set(i, TaskState.PENDING)
        self._parked[i] = reason

    def wants(self, task_id: str) -> bool:
        """Whether the task would start if nothing of others were in its way."""
        i = self.index.get(task_id)
        return i is not None and not self.held_up and self._may_start(i)

    def unpark(self, task_id: str) -> None:
        """What the task has waited for is there."""
        i = self.index.get(task_id, -1)
        if self._parked.pop(i, None) and self.states[i] is TaskState.PENDING:
            self._make_ready(i)

    def withdraw(self, task_id: str) -> None:
        """A task that was decided to start could not be: it is ready again."""
        i = self.index[task_id]
        self._set(i, TaskState.PENDING)
        self._make_ready(i)

    def end(self, boottime: float) -> tuple[WorkflowEvent, str] | None:
        """How the workflow has ended, if nothing more can happen in it."""
        self._wake(boottime)  # also where it has not: a backoff that is over must not keep `next_due` in the past
        if self.running:
            return None
        if self.cancelling:
            return WorkflowEvent.CANCELLED, "cancelled"
        if self.rollback_asked:
            return WorkflowEvent.ROLLING_BACK, ""
        if self._expired(boottime):
            return WorkflowEvent.CANCELLED, "expired"
        waits = any(map(self._may_start, (*self._waking, *self._parked)))
        return None if self.paused or self._ready or waits or self._held else self._verdict()

    def _verdict(self) -> tuple[WorkflowEvent, str]:
        """How it has ended, as nothing more can happen in it by itself."""
        failed = self._counts[TaskState.FAILED] + self._counts[TaskState.CANCELLED]
        if not failed:
            return WorkflowEvent.SUCCEEDED, ""
        event = WorkflowEvent.ROLLING_BACK if "rollback" in self._policies else WorkflowEvent.FAILED
        return event, f"{failed} of {len(self.tasks)} tasks failed"

    def next_due(self) -> float | None:
        """The boottime at which the next backoff ends, or the workflow may begin."""
        dues = [self._opens] if self._opens is not None and not self._touched else []
        return min([*dues, *(at for at, _ in self._delayed[:1])], default=None)

    # Looking

    def waits_for_person(self) -> str | None:
        """A task about which a person must decide, if there is one."""
        return self.tasks[min(self._held)].id if self._held else None

    def next_likely(self, running: Iterable[str], most: int) -> list[str]:
        """A guess at what starts next: what is ready, then what waits for nothing but one that runs or is guessed."""
        if self.held_up or self.stopped:
            return []
        found = [i for _, i in self._ready[:most] if self._may_start(i)]
        before = [i for task_id in running if (i := self.index.get(task_id, -1)) >= 0] + found
        while before and len(found) < most:
            edges = (edge for i in before for edge in islice(self._dependents[i], GLANCE))
            behind = dict.fromkeys(max(edge, ~edge) for edge in edges if self._waits[max(edge, ~edge)] == 1)
            before = [j for j in behind if j < len(self.tasks) and self.states[j] is TaskState.PENDING]
            found += before
        return [self.tasks[i].id for i in found[:most]]

    def close(self, state: TaskState, reason: str) -> None:
        """Give what never started its last state: the workflow has ended."""
        for i, now in enumerate(self.states[: len(self.tasks)]):
            if now is TaskState.PENDING:
                self._set(i, state)
                self.reasons.setdefault(i, reason)

    def states_by_task(self) -> dict[str, str]:
        """The states of all tasks, by their ids."""
        return {task.id: str(state) for task, state in zip(self.tasks, self.states, strict=False)}

    def counts(self) -> dict[str, int]:
        """Tasks by state."""
        return {str(state): count for state, count in sorted(self._counts.items()) if count}

    def waiting_for(self, task_id: str) -> list[str]:
        """Why a pending task does not start: `dependency:ID`, `held`, `backoff`, `paused`, `stopped`, `slot`."""
        i = self.index[task_id]
        if self.states[i] is not TaskState.PENDING:
            return []
        edges = self.graph.waits[i]
        waits = [j for j in edges if j >= 0 and self.states[j] is not TaskState.SUCCEEDED]
        waits += [~j for j in edges if j < 0 and self.states[~j] not in ENDED_TASKS]
        reasons = [f"dependency:{name}" for name in dict.fromkeys(self.graph.names[j] for j in waits)]
        keeps = {"held": i in self._held, "backoff": i in self._waking}
        keeps |= {"stopped": self.stopped and i not in self._begun, "not_before": self._early}
        reasons += [reason for reason, true in keeps.items() if true]
        reasons += [self._parked[i]] if i in self._parked else []
        reasons += ["paused"] if self.paused else []
        return reasons or ["max_parallel" if self.running >= self.max_parallel else "slot"]
