"""How near a schedule comes to the best possible: random graphs in layers, with durations that are known, simulated.

The bound is max(critical path, work / slots): no schedule ends sooner. Beside it the same graphs first in, first out.

./packaging/dev bench makespan [--graphs N]
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from provisioning.core.graph import critical_path
from provisioning.core.scheduler import Now, Schedule
from provisioning.core.states import TaskState
from provisioning.core.workflow import FORMAT, Task, TaskCheckpoint, Workflow

SLOTS = (4, 8, 16, 32, 64)
NOW = Now(datetime(2026, 1, 1, tzinfo=UTC), 0.0, "boot")


class Spans(NamedTuple):
    """Seconds that one graph takes in so many slots: at the least, as scheduled, and first in, first out."""

    bound: float
    scheduled: float
    in_turn: float


def layered(rng: random.Random, size: int, layers: int) -> Workflow:
    """Tasks in layers of uneven width, each after one to three of the layer before; a few take much longer."""
    tasks: list[Task] = []
    before: list[str] = []
    while len(tasks) < size:
        width = min(rng.randint(max(1, size // layers // 2), size * 3 // layers // 2), size - len(tasks))
        layer = [f"t{len(tasks) + i}" for i in range(width)]
        for task_id in layer:
            needs = rng.sample(before, min(len(before), rng.randint(1, 3)))
            took = round(rng.lognormvariate(2, 1), 3) + 0.001
            tasks.append(Task(task_id, "selftest.noop", depends_on=tuple(needs), expected_seconds=took))
        before = layer
    return Workflow("layered", tuple(tasks))


def simulated(workflow: Workflow, slots: int) -> float:
    """Seconds until the last task has ended, each taking what was expected, started as our schedule says."""
    schedule = Schedule(workflow, [], NOW)

    def start() -> str | None:
        return schedule.start_next().id if schedule.can_start(0.0) else None

    def end(task_id: str) -> None:
        schedule.settle(TaskCheckpoint(FORMAT, task_id, TaskState.SUCCEEDED), NOW)

    return _played(workflow, slots, start, end)


def in_turn(workflow: Workflow, slots: int) -> float:
    """The same with ready tasks started in the order in which they became ready."""
    waits = {task.id: len(task.depends_on) for task in workflow.tasks}
    dependents: dict[str, list[str]] = {task.id: [] for task in workflow.tasks}
    for task in workflow.tasks:
        for other in task.depends_on:
            dependents[other].append(task.id)
    ready = deque(task_id for task_id, count in waits.items() if not count)

    def start() -> str | None:
        return ready.popleft() if ready else None

    def end(task_id: str) -> None:
        for other in dependents[task_id]:
            waits[other] -= 1
            if not waits[other]:
                ready.append(other)

    return _played(workflow, slots, start, end)


def _played(workflow: Workflow, slots: int, start: Callable[[], str | None], end: Callable[[str], None]) -> float:
    took = {task.id: task.expected_seconds or 0.0 for task in workflow.tasks}
    running: list[tuple[float, str]] = []
    now = 0.0
    while True:
        while len(running) < slots and (task_id := start()) is not None:
            heapq.heappush(running, (now + took[task_id], task_id))
        if not running:
            return now
        now, task_id = heapq.heappop(running)
        end(task_id)


def measured(graphs: int, seed: int = 1) -> list[Spans]:
    """Graphs of 100 to 1,000 tasks in 5 to 50 layers, each in every number of slots."""
    rng = random.Random(seed)
    found = []
    for _ in range(graphs):
        workflow = layered(rng, rng.randint(100, 1000), rng.randint(5, 50))
        took = {task.id: task.expected_seconds or 0.0 for task in workflow.tasks}
        longest = sum(took[task_id] for task_id in critical_path(workflow))
        for slots in SLOTS:
            bound = max(longest, sum(took.values()) / slots)
            found.append(Spans(bound, simulated(workflow, slots), in_turn(workflow, slots)))
    return found


def above_bound(spans: list[Spans]) -> float:
    """How far above the bound the schedules are on average: 0.01 is one percent."""
    return statistics.mean(each.scheduled / each.bound for each in spans) - 1


def worse_than_in_turn(spans: list[Spans]) -> float:
    """The share of schedules that take longer than first in, first out."""
    return statistics.mean(each.scheduled > each.in_turn * (1 + 1e-9) for each in spans)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=200)
    spans = measured(parser.parse_args().graphs)
    fifo = statistics.mean(each.in_turn / each.bound for each in spans) - 1
    print(f"makespan, {len(spans)} schedules  {above_bound(spans) * 100:6.2f} % above the bound  (goal 1)")
    print(f"first in, first out      {fifo * 100:6.2f} % above the bound")
    print(f"worse than that          {worse_than_in_turn(spans) * 100:6.2f} % of schedules  (goal 1)")


if __name__ == "__main__":
    main()
