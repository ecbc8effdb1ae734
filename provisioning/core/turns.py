"""Whose turn it is among the workflows that a process holds: whose task starts next, and which of them have ended."""

from __future__ import annotations

from typing import NamedTuple

from provisioning.core.identifiers import ulid_milliseconds
from provisioning.core.scheduler import Now, Schedule
from provisioning.core.states import WorkflowEvent

POINT_MILLISECONDS = 60_000
"""What a point of priority is worth: so much later a workflow may have been submitted and still go first."""


def rank(priority: int, workflow_id: str) -> int:
    """Who goes first: the lowest. It does not change with time, so that whoever waits is overtaken by fewer and fewer:
    priority 100 goes ahead of priority 0 that was submitted up to 100 minutes earlier, and of no other.
    """
    return ulid_milliseconds(workflow_id) - priority * POINT_MILLISECONDS


class Start(NamedTuple):
    """Start an attempt of this task."""

    workflow_id: str
    task_id: str


class End(NamedTuple):
    """The workflow has ended so."""

    workflow_id: str
    event: WorkflowEvent
    reason: str


class Scheduler:
    """The workflows that are held, and what to do about them next."""

    def __init__(self) -> None:
        self._schedules: dict[str, Schedule] = {}
        self._order: list[tuple[int, str]] = []

    def add(self, workflow_id: str, schedule: Schedule, priority: int) -> None:
        """Take a workflow in, or replace its schedule."""
        self.remove(workflow_id)
        self._schedules[workflow_id] = schedule
        self._order.append((rank(priority, workflow_id), workflow_id))
        self._order.sort()

    def remove(self, workflow_id: str) -> None:
        """Let go of a workflow."""
        if self._schedules.pop(workflow_id, None):
            self._order = [entry for entry in self._order if entry[1] != workflow_id]

    def starts(self, now: Now, free_slots: int) -> list[Start]:
        """The tasks to start now, by the ranks of their workflows."""
        chosen: list[Start] = []
        for _, workflow_id in self._order:
            schedule = self._schedules[workflow_id]
            while len(chosen) < free_slots and schedule.can_start(now.boottime):
                chosen.append(Start(workflow_id, schedule.start_next().id))
        return chosen

    def ends(self, now: Now) -> list[End]:
        """The workflows in which nothing more can happen."""
        found = ((workflow_id, schedule.end(now.boottime)) for workflow_id, schedule in self._schedules.items())
        return [End(workflow_id, *ended) for workflow_id, ended in found if ended]

    def best_ready(self, now: Now) -> int | None:
        """The lowest rank among the workflows that could start a task."""
        for ranked, workflow_id in self._order:
            if self._schedules[workflow_id].can_start(now.boottime):
                return ranked
        return None

    def next_due(self) -> float | None:
        """The boottime at which a backoff ends first."""
        return min((at for s in self._schedules.values() if (at := s.next_due()) is not None), default=None)
