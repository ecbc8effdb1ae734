"""What a very large workflow costs on very many slots: the scheduler and the bookkeeping alone, simulated.

No process, no disk: tasks take the time that was drawn for them, on a clock that jumps from end to end. What is
measured is the orchestrator's own part, in a process of its own for each size: seconds of processor per task, and
memory. Every graph must end with each task done once, none before what it depends on.

./packaging/dev bench fleet [--tasks N] [--slots N]
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import random
import subprocess
import sys
import time
from datetime import timedelta
from typing import NamedTuple

from provisioning.core import attempts
from provisioning.core.scheduler import Now, Schedule
from provisioning.core.states import Outcome, TaskState
from provisioning.core.turns import Scheduler
from provisioning.core.workflow import FORMAT, OutcomeRecord, Task, TaskCheckpoint, Workflow
from tests.benchmark.makespan import NOW
from tests.benchmark.place import SHAPES, Needs, memory_mib

SMALL = 10_000
"""What the large one is compared with."""
WIDTH = 20_000
"""Tasks of a layer: more than there are slots."""
WORKFLOW_ID = "0" * 26
WORKER = "1" * 26


def layers(i: int) -> list[int]:
    """Wide layers; each task after three of the layer before."""
    return [] if i < WIDTH else [i // WIDTH * WIDTH - WIDTH + (i * 7 + k * 5) % WIDTH for k in range(3)]


GRAPHS: dict[str, Needs] = {**SHAPES, "layers": layers}


class Cost(NamedTuple):
    """What a workflow has cost."""

    cpu_seconds: float
    """Of all that happened to it, from the first start to its end."""
    load_seconds: float
    """Of making its schedule."""
    mebibytes: float
    """The most memory, without what the interpreter had before."""
    most_running: int


class Fleet:
    """Slots whose attempts last as long as was drawn, and what an orchestrator keeps of each task."""

    def __init__(self, workflow: Workflow, slots: int, seed: int = 1) -> None:
        self.tasks = {task.id: task for task in workflow.tasks}
        self._slots = slots
        self._rng = random.Random(seed)
        self._running: list[tuple[float, str]] = []
        self.checkpoints: dict[str, TaskCheckpoint] = {}
        self.schedule = Schedule(workflow, [], NOW)
        self._scheduler = Scheduler()
        self._scheduler.add(WORKFLOW_ID, self.schedule, 0)
        self.most_running = 0

    def work(self) -> str:
        """Play it to its end; how it ended."""
        now = NOW
        while not (ends := self._scheduler.ends(now)):
            for start in self._scheduler.starts(now, self._slots - len(self._running)):
                self._start(start.task_id, now)
            self.most_running = max(self.most_running, len(self._running))
            seconds, task_id = heapq.heappop(self._running)
            now = Now(NOW.wall + timedelta(seconds=seconds), seconds, NOW.boot_id)
            self._end(task_id, now)
        return str(ends[0].event)

    def _settle(self, checkpoint: TaskCheckpoint, now: Now) -> None:
        self.checkpoints[checkpoint.task_id] = checkpoint
        self.schedule.settle(checkpoint, now)

    def _start(self, task_id: str, now: Now) -> None:
        for other in self.tasks[task_id].depends_on:
            done = other in self.checkpoints and self.checkpoints[other].state is TaskState.SUCCEEDED
            assert done, f"{task_id} started before {other} was done"
        assert task_id not in self.checkpoints, f"{task_id} started twice"
        self._settle(attempts.started(TaskCheckpoint(FORMAT, task_id), now, WORKER), now)
        heapq.heappush(self._running, (now.boottime + self._rng.lognormvariate(2, 1), task_id))

    def _end(self, task_id: str, now: Now) -> None:
        before = self.checkpoints[task_id]
        begun = before.attempts[-1].started_at
        record = OutcomeRecord(FORMAT, WORKFLOW_ID, task_id, 1, Outcome.SUCCEEDED, begun, now.wall, 0)
        self._settle(attempts.ended(before, self.tasks[task_id], record, now, cancelling=False), now)


def workflow_of(count: int, needs: Needs) -> Workflow:
    """A workflow of so many tasks of that shape."""
    return Workflow(
        "fleet",
        tuple(Task(f"t{i}", "selftest.noop", depends_on=tuple(f"t{j}" for j in needs(i))) for i in range(count)),
    )


def played(count: int, slots: int, shape: str) -> Cost:
    """The cost of one workflow, in this process."""
    gc.set_threshold(100_000)  # as the program does
    before = memory_mib("VmRSS")
    workflow = workflow_of(count, GRAPHS[shape])
    begun = time.process_time()
    fleet = Fleet(workflow, slots)
    loaded = time.process_time()
    event = fleet.work()
    cpu = time.process_time() - loaded
    states = {checkpoint.state for checkpoint in fleet.checkpoints.values()}
    assert (event, len(fleet.checkpoints), states) == ("succeeded", count, {TaskState.SUCCEEDED})
    return Cost(cpu, loaded - begun, memory_mib("VmHWM") - before, fleet.most_running)


def alone(count: int, slots: int, shape: str) -> Cost:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmark.fleet", "--one", shape, f"--tasks={count}", f"--slots={slots}"]
    return Cost(*json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--slots", type=int, default=10_000)
    parser.add_argument("--one", choices=GRAPHS, help="one shape in this process, its cost as JSON")
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(played(asked.tasks, asked.slots, asked.one)))
        return
    print(f"{asked.tasks} tasks on {asked.slots} slots: microseconds of processor per task, MiB")
    for shape in GRAPHS:
        small, large = alone(SMALL, asked.slots, shape), alone(asked.tasks, asked.slots, shape)
        each, few = large.cpu_seconds / asked.tasks, small.cpu_seconds / SMALL
        print(
            f"{shape:8} {each * 1e6:7.1f} µs a task ({each / few:.2f} of that with {SMALL}), "
            f"loaded in {large.load_seconds:.1f} s, {large.mebibytes:.0f} MiB, {large.most_running} at once",
            flush=True,
        )


if __name__ == "__main__":
    main()
