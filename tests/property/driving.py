"""Random workflows with everything in them, driven to their end by the real schedulers beside the reference.

What decides is the program's own: `Schedule`, `Undoing`, `Scheduler`, `Limits`, `attempts`, and of the orchestrator
`work_of` and `wanted_by`. What acts is here: attempts end as hypothesis says.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from hypothesis import strategies as st

from provisioning.config import Bounds, Config, Environment, Paths
from provisioning.config import Orchestrator as OrchestratorSettings
from provisioning.core import attempts
from provisioning.core.catalogue import Operation
from provisioning.core.graph import Graph
from provisioning.core.rollback import SUFFIX, Undoing, undo_tasks
from provisioning.core.scheduler import Now, Schedule
from provisioning.core.states import Outcome, TaskEvent, WorkflowEvent
from provisioning.core.turns import Scheduler
from provisioning.core.workflow import (
    FORMAT,
    Condition,
    Plan,
    Retry,
    Rollback,
    Task,
    TaskCheckpoint,
    Undo,
    Workflow,
    apply_task,
)
from provisioning.execution.executor import Key
from provisioning.orchestrator.limits import Limits
from provisioning.orchestrator.work import wanted_by, work_of
from tests.property.reference import Reference
from tests.property.undoing import undoing
from tests.simulation.values import NULIB, WORKFLOW_ID, at, record

ROOM = 2
"""Of the group `g`."""
TARGETS: dict[str, dict[str, Any]] = {
    "work.plain": {},
    "work.alone": {"exclusive": ("x",)},
    "work.both": {"exclusive": ("y", "x")},
    "work.shared": {"shared": ("x",)},
    "undo.again": {"exclusive": ("x",), "idempotent": True},
    "undo.once": {"shared": ("y",)},
}
OPERATIONS = {name: Operation(name, name, "", "", (), {}, **facts) for name, facts in TARGETS.items()}
OUTCOMES = [
    *[Outcome.SUCCEEDED] * 4,
    *[Outcome.FAILED] * 2,
    Outcome.TIMED_OUT,
    Outcome.INTERRUPTED,
    Outcome.NOT_STARTED,
]
POLICIES = ["stop", "continue", "rollback"]


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    """A random graph of up to 12 tasks in random order, with random policies; some of three are a group."""
    size = draw(st.integers(1, 12))
    grouped = draw(st.sets(st.integers(0, 3)))
    ids = [f"g{i // 3}.{i}" if i // 3 in grouped else f"t{i}" for i in range(size)]
    tasks = []
    for i in range(size):
        names = [*ids[:i], *(f"g{k}" for k in grouped if k < i // 3)]
        earlier: st.SearchStrategy[list[str]] = (
            st.lists(st.sampled_from(names), unique=True, max_size=3) if i else st.just([])
        )
        depends_on: list[str] = draw(earlier)
        asked = [name for name in depends_on if name in ids]
        whens: st.SearchStrategy[Condition | None] = st.none()
        if asked:
            whens |= st.builds(Condition, st.just(asked[0]), st.just("result.present"), st.booleans())
        by = draw(st.sampled_from([None, "undo.again", "undo.once"]))
        tasks.append(
            Task(
                ids[i],
                draw(st.sampled_from([name for name in OPERATIONS if name.startswith("work.")])),
                depends_on=tuple(depends_on),
                after=tuple(draw(earlier)),
                retry=Retry(max_attempts=draw(st.integers(1, 3)), initial_delay_seconds=draw(st.integers(0, 3))),
                on_interrupt=draw(st.sampled_from(["rerun", "rerun", "fail"])),
                when=draw(whens),
                on_failure=draw(st.sampled_from([None, None, *POLICIES])),
                undo=Undo(by, {}, retry=Retry(max_attempts=draw(st.integers(1, 2)))) if by else None,
                preserve=draw(st.integers(0, 5)) == 5,
                group=draw(st.sampled_from([None, "g"])),
            )
        )
    return Workflow(
        "random",
        tuple(draw(st.permutations(tasks))),
        max_parallel=draw(st.none() | st.integers(1, 4)),
        on_failure=draw(st.sampled_from(POLICIES)),
    )


class Driver:
    """One workflow, from its first start to its end, or to where a person must decide."""

    def __init__(self, workflow: Workflow, slots: int, data: st.DataObject, locks: Path) -> None:
        self.plan = Plan(FORMAT, WORKFLOW_ID, workflow, OPERATIONS, NULIB)
        self.tasks = {task.id: task for task in workflow.tasks} | undo_tasks(self.plan)
        self.workflow, self.slots, self.data, self.locks = workflow, slots, data, locks
        self.now: Now = at(0)
        self.checkpoints: dict[str, TaskCheckpoint] = {}
        self.results: dict[str, Any] = {}
        self.asked: Rollback | None = None
        self.running: list[str] = []
        self.ends: list[str] = []
        paths = Paths(locks, locks)
        self.config = Config(paths, OrchestratorSettings(), Bounds(), Environment(), groups={"g": ROOM})
        self.limits = Limits(locks)
        self.reference = self._reference(workflow)
        self._load()

    def _reference(self, workflow: Workflow) -> Reference:
        made = Reference(workflow, {task.id: self._wanted(task.id) for task in workflow.tasks})
        made.results = self.results
        for task_id in set(made.tasks) & set(self.checkpoints):
            made.learn(self.checkpoints[task_id])
        return made

    def _held(self) -> Any:
        """What `work_of` and `wanted_by` look at, of the orchestrator's `Held`."""
        return SimpleNamespace(
            plan=self.plan,
            tasks=self.tasks,
            workflow_id=WORKFLOW_ID,
            forward=SimpleNamespace(graph=Graph(self.workflow.tasks)),
            task_checkpoint=lambda task_id: self.checkpoints.get(task_id) or TaskCheckpoint(FORMAT, task_id),
            folder=SimpleNamespace(result=lambda checkpoint: self.results.get(checkpoint.task_id)),
        )

    def _wanted(self, task_id: str) -> Any:
        operation = OPERATIONS[self.tasks[task_id].operation]
        work = SimpleNamespace(refusal=None, params={}, operation=operation)
        return wanted_by(self._held(), task_id, cast("Any", work), self.config)

    def _load(self) -> None:
        """Begin with what is on record, as after a crash: lines are lost, what attempts hold is not."""
        loaded = self.data.draw(st.permutations(list(self.checkpoints.values())))
        forward = [each for each in loaded if not each.task_id.endswith(SUFFIX)]
        self.schedule: Schedule = Schedule(self.workflow, forward, self.now)
        if self.ends:
            self.schedule = Undoing(self.plan, self.checkpoints, self.asked, self.now)
        self.schedule.paused, self.schedule.cancelling = self.reference.paused, self.reference.cancelling
        self.schedule.rollback_asked = self.reference.rollback_asked
        self.scheduler = Scheduler()
        self.scheduler.add(WORKFLOW_ID, self.schedule, 50)
        self.limits.close()
        self.limits = Limits(self.locks)
        self.reference.line = []
        for task_id in self.running:
            self.limits.take(self._key(task_id), self.reference.wanted[task_id])

    def run(self) -> str | None:
        """Start, end, ask, reload and wait until nothing more happens; the end, None where a person must decide."""
        while True:
            self.withdrawn = False
            while self._turns() | self._start():
                pass
            self._compare()
            if ended := self.scheduler.ends(self.now):
                self.ends.append(str(ended[0].event))
                if ended[0].event is not WorkflowEvent.ROLLING_BACK:
                    return self.ends[-1]
                self.reference = self._reference(undoing(self.plan, self.checkpoints, self.asked or Rollback()))
                self._load()
            elif self.running:
                self.now = at(self.now.boottime + 0.001)
                self._end(self.running.pop(self.data.draw(st.integers(0, len(self.running) - 1))))
            elif (due := self.scheduler.next_due()) is not None and not self.reference.paused:
                assert due > self.now.boottime
                self.now = at(due)
            elif self.reference.paused:
                self.schedule.paused = self.reference.paused = False
            else:
                return None
            self._happen()

    def _happen(self) -> None:
        """Now and then somebody asks for something, or the orchestrator dies and another goes on."""
        what = self.data.draw(st.integers(0, 39))
        if 34 <= what <= 37:
            self._load()
        elif what in (32, 33):
            self.schedule.paused = self.reference.paused = what == 32
        elif what == 39:
            self.schedule.cancelling = self.reference.cancelling = True
        elif what == 38 and not self.ends:
            self.asked = Rollback(preserve=(self.workflow.tasks[0].id,))
            self.schedule.rollback_asked = self.reference.rollback_asked = True

    def _turns(self) -> bool:
        """What a look at the lines does; whether somebody need not wait any longer."""
        turns = self.limits.next_turns(lambda _, task_id: self.schedule.wants(task_id))
        self.reference.look_at_line()
        for _, task_id in turns:
            self.schedule.unpark(task_id)
        return bool(turns) and self._room() > 0

    def _room(self) -> int:
        most = min(self.slots, self.workflow.max_parallel or self.slots)
        return most - len(self.running)

    # Starting: what `Starter` does

    def _start(self) -> bool:
        """Start what the scheduler says; whether something was."""
        ready = {task_id for task_id in self.reference.tasks if self._is_ready(task_id)}
        starts = self.scheduler.starts(self.now, self.slots - len(self.running))
        for _, task_id in starts:
            assert self.reference.may_start(task_id, self.now.boottime), f"{task_id} was started too soon"
            ready.discard(task_id)
            later = [other for other in ready if self._urgency(other) > self._urgency(task_id)]
            assert not later, f"{task_id} was started before {later}"
            if not self.withdrawn and self.data.draw(st.integers(0, 19)) == 19:
                self.schedule.withdraw(task_id)  # as no process could be had
                self.withdrawn = True
            else:
                self._begin(task_id)
        assert self._room() >= 0, "more attempts than slots, or than max_parallel"
        return bool(starts)

    def _is_ready(self, task_id: str) -> bool:
        waits = task_id in self.reference.line and self.reference.is_blocked(task_id)
        return self.reference.may_start(task_id, self.now.boottime) and not waits

    def _urgency(self, task_id: str) -> float:
        """Tasks on the longest way to the end; of what is undone, when it had ended."""
        if last := self.ends and self.checkpoints[task_id.removesuffix(SUFFIX)].last:
            return (last.ended_at or last.started_at).timestamp()
        of = self.reference
        behind = (other for other in of.tasks if task_id in (*of.depends_on[other], *of.after[other]))
        return 1 + max(map(self._urgency, behind), default=0)

    def _begin(self, task_id: str) -> None:
        held, before = self._held(), self.checkpoints.get(task_id) or TaskCheckpoint(FORMAT, task_id)
        work = work_of(held, task_id)
        assert work.refusal is None
        assert bool(work.skip) is self.reference.is_out(task_id), f"{task_id}: {work.skip}"
        if work.skip:
            self._settle(apply_task(before, TaskEvent.SKIPPED, reason=work.skip))
            return
        wanted = wanted_by(held, task_id, work, self.config)
        missing = self.limits.in_the_way((WORKFLOW_ID, task_id), wanted)
        assert bool(missing) is self.reference.is_blocked(task_id), f"{task_id}: {missing}"
        if missing:
            self.limits.wait((WORKFLOW_ID, task_id), wanted)
            self.schedule.park(task_id, missing)
            self.reference.line += [task_id] if task_id not in self.reference.line else []
            return
        self._settle(attempts.started(before, self.now, "w"))
        self.limits.take(self._key(task_id), wanted)
        self.running.append(task_id)

    def _key(self, task_id: str) -> Key:
        return Key(WORKFLOW_ID, task_id, self.checkpoints[task_id].attempts[-1].number)

    # Ending

    def _end(self, task_id: str) -> None:
        before, task, cancelling = self.checkpoints[task_id], self.tasks[task_id], self.reference.cancelling
        self.limits.release(self._key(task_id))
        outcome = self.data.draw(st.sampled_from([*OUTCOMES, *([Outcome.CANCELLED] * 9 if cancelling else [])]))
        if outcome is Outcome.INTERRUPTED:
            self._settle(attempts.interrupted(before, task, self.now, "lost"))
        elif outcome is Outcome.NOT_STARTED:
            self._settle(attempts.not_started(before, self.now, "no room"))
        else:
            if outcome is Outcome.SUCCEEDED:
                self.results[task_id] = {"present": self.data.draw(st.booleans())}
            told = record(task_id, outcome, before.attempts[-1].number)
            told = msgspec.structs.replace(told, ended_at=self.now.wall)
            self._settle(attempts.ended(before, task, told, self.now, cancelling=cancelling))

    def _settle(self, checkpoint: TaskCheckpoint) -> None:
        self.checkpoints[checkpoint.task_id] = checkpoint
        self.schedule.settle(checkpoint, self.now)
        self.reference.learn(checkpoint)

    def _compare(self) -> None:
        """Nothing is left that could start, and both say the same of every task and of the end."""
        assert self.schedule.states_by_task() == self.reference.states()
        may = (task_id for task_id in self.reference.tasks if self.reference.may_start(task_id, self.now.boottime))
        idle = [task_id for task_id in may if not self.reference.is_blocked(task_id)]
        assert not idle or self._room() <= 0, f"{idle} could start and do not"
        ended = self.schedule.end(self.now.boottime)
        said = self.reference.end()
        if self.ends and said in ("succeeded", "failed"):
            said = "rolled_back"
        assert (str(ended[0]) if ended else None) == said


def drive(workflow: Workflow, slots: int, data: st.DataObject, locks: Path) -> Driver:
    """Drive a workflow until nothing more happens in it; `locks` is a folder for the file of target locks."""
    driver = Driver(workflow, slots, data, locks)
    try:
        driver.run()
    finally:
        driver.limits.close()
    return driver
