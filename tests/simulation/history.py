"""One random history: workflows, failures, crashes, requests; then the end, and what must be true of it."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from provisioning.config import Bounds, Config, Environment, Paths
from provisioning.config import Orchestrator as OrchestratorSettings
from provisioning.core import manifest
from provisioning.core.states import ENDED_WORKFLOWS, Outcome, TaskState, WorkflowState
from provisioning.core.workflow import Workflow
from provisioning.errors import NotFound, Refused, SpoolUnusable
from provisioning.execution.executor import Key
from provisioning.orchestrator import claim, loop, recovery, requests
from provisioning.orchestrator.loop import Orchestrator
from provisioning.storage import files
from provisioning.storage.naming import naming
from provisioning.storage.spool import Spool
from tests.simulation.values import submission
from tests.simulation.workload import load_nulib, random_workflow
from tests.simulation.world import Begin, End, SimulatedExecutor, World

STEPS = 4000
"""More ticks than any history needs: who needs them has no end."""
SPINNING = 30
"""So many ticks in a row without anything to do are a loop that does not sleep."""


class Crash(BaseException):
    """The orchestrator's process ends here."""


class Incarnation:
    """One orchestrator process."""

    def __init__(self, world: World, config: Config) -> None:
        self.spool = Spool.open(world.spool.root)
        self.executor = SimulatedExecutor(world, config.orchestrator.slots)
        self.orchestrator = Orchestrator(self.spool, config, self.executor, load_nulib)

    def die(self) -> None:
        """Its descriptors close, and with them its locks; what it left half written stays."""
        self.executor.close()
        for held in self.orchestrator._held.values():
            held.release()
        if self.spool._scratch is not None:
            os.close(self.spool._scratch.descriptor)


class History:
    """A seed's history on a spool of its own."""

    def __init__(self, seed: int, root: Path, patched: pytest.MonkeyPatch) -> None:
        self.chance = random.Random(seed)
        self.person = Spool.create(root)
        self.world = World(seed, self.person)
        self.world.check = self._may_begin
        self.config = Config(
            paths=Paths(root, root),
            orchestrator=OrchestratorSettings(slots=self.chance.randint(1, 4)),
            limits=Bounds(grace_seconds=1.0),
            environment=Environment(),
        )
        self.workflows: dict[str, Workflow] = {}
        self.retried: dict[str, int] = {}
        self.alive: list[Incarnation] = []
        self.sleeps: list[float] = []
        self._acting: Incarnation | None = None
        self._crash_at = 0
        self._disk_full = False
        self._patch(patched)

    def _patch(self, patched: pytest.MonkeyPatch) -> None:
        for module in (claim, loop, requests):
            patched.setattr(module, "instant", self.world.instant)
        patched.setattr(claim, "boot_id", self.world.boot_id)
        for name in ("holders", "end_holders", "send_signal"):
            patched.setattr(recovery, name, getattr(self.world, name))
        patched.setattr(loop, "wait_for_news", self._sleep)
        patched.setattr(os, "fsync", lambda descriptor: None)  # no power cut here loses what was written
        for name in ("write_atomic", "move", "remove", "write_once"):
            patched.setattr(files, name, self._breaking(getattr(files, name)))

    def _sleep(self, executor: SimulatedExecutor, others: Sequence[Any], seconds: float) -> list[Any]:
        self.sleeps.append(0.0 if executor.has_news() else seconds)
        return []

    def _breaking(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A call that changes the spool, at which the orchestrator may end or the disk refuse."""

        def call(*args: Any, **rest: Any) -> Any:
            if self._acting is None:
                return original(*args, **rest)
            if self._disk_full and original.__name__ != "remove":
                with naming(args[0]):
                    raise OSError(errno.ENOSPC, "No space left on device")
            self._crash_at -= 1
            if self._crash_at == 0 and self.chance.random() < 0.5:
                raise Crash
            result = original(*args, **rest)
            if self._crash_at == 0:
                raise Crash
            return result

        return call

    # What happens

    def run(self) -> None:
        """Chaos for a while, then calm until all has ended; then the checks."""
        self.alive.append(Incarnation(self.world, self.config))
        for _ in range(self.chance.randint(1, 3)):
            self._submit()
        for _ in range(self.chance.randint(10, 60)):
            self._chaos()
            self._step()
        self._disk_full = False
        for _ in range(STEPS):
            if not self.alive:
                self.alive.append(Incarnation(self.world, self.config))
            if self._is_over():
                break
            self._step()
        else:
            raise AssertionError(f"it has no end: {self._states()}")
        self._check()

    def _submit(self) -> None:
        workflow = random_workflow(self.chance)
        workflow_id = f"01kc{len(self.workflows):022}"
        self.workflows[workflow_id] = workflow
        data = manifest.write(workflow, form="json")
        facts: dict[str, Any] = {"priority": workflow.priority, "tasks": len(workflow.tasks)}
        facts["digest"] = hashlib.sha256(data).hexdigest()
        if self.chance.random() < 0.2:
            facts["not_before"] = self.world.instant().wall + timedelta(seconds=self.chance.choice([1, 10]))
        self.person.submit(data, "json", submission(workflow_id, **facts))

    def _chaos(self) -> None:
        deed = self.chance.random()
        if deed < 0.10 and self.alive:
            self._die(self.chance.choice(self.alive))
        elif deed < 0.20:
            self._crash_at = self.chance.randint(1, 6)
        elif deed < 0.30 and (living := [worker for worker in self.world.workers.values() if worker.alive]):
            self.world.kill(self.chance.choice(living), all_of_it=self.chance.random() < 0.5)
        elif deed < 0.33:
            for incarnation in list(self.alive):
                self._die(incarnation)
            self.world.power_cut()
        elif deed < 0.40:
            self._disk_full = not self._disk_full
        elif deed < 0.50:
            self._ask()
        elif deed < 0.53:
            self._submit()
        if len(self.alive) < 2 and self.chance.random() < (0.6 if not self.alive else 0.05):
            self.alive.append(Incarnation(self.world, self.config))

    def _ask(self) -> None:
        verb = self.chance.choice(["cancel", "pause", "resume", "resume", "retry", "retry"])
        workflow_id = self.chance.choice(list(self.workflows))
        names = [task.id for task in self.workflows[workflow_id].tasks]
        tasks = (self.chance.choice(names),) if verb == "retry" and self.chance.random() < 0.5 else ()
        self._request(verb, workflow_id, tasks)

    def _request(self, verb: str, workflow_id: str, tasks: tuple[str, ...] = ()) -> None:
        try:
            requests.ask(self.person, self.config, load_nulib, verb, workflow_id, operator="alice", tasks=tasks)
        except (Refused, NotFound, SpoolUnusable):
            return
        self.retried[workflow_id] = self.retried.get(workflow_id, 0) + (verb == "retry")

    def _die(self, incarnation: Incarnation) -> None:
        self.alive.remove(incarnation)
        incarnation.die()

    @contextmanager
    def _as(self, incarnation: Incarnation) -> Iterator[None]:
        self._acting = incarnation
        try:
            yield
        except Crash:
            self._die(incarnation)
        finally:
            self._acting = None

    def _step(self) -> None:
        """Every orchestrator does one tick; then the time passes until one of them or a worker wants something."""
        self.sleeps = []
        for incarnation in list(self.alive):
            with self._as(incarnation):
                incarnation.orchestrator.tick()
                incarnation.orchestrator.wait([])
        event = self.world.next_event()
        seconds = min([*self.sleeps, *([] if event is None else [event]), 60.0])
        idle = seconds == 0.0 and event != 0.0 and not any(each.executor.has_news() for each in self.alive)
        self._spun = self._spun + 1 if idle else 0
        assert self._spun < SPINNING, "an orchestrator does not sleep"
        self.world.advance(max(seconds, 0.001) if seconds else 0.0)  # two clocks of floats differ in the last bits

    _spun = 0

    # What must be true

    def _may_begin(self, key: Key, probe: bool) -> None:
        """An attempt begins: nothing else of its task lives, and what it waits for has happened."""
        living = [worker.key for worker in self.world.living() if worker.key[:2] != key[:2] or worker.key != key]
        same = [other for other in living if other[:2] == key[:2]]
        assert not same, f"{key} began while {same[0]} lived"
        workflow = self.workflows[key.workflow_id]
        mine = [other for other in living if other.workflow_id == key.workflow_id]
        assert len(mine) < (workflow.max_parallel or 1000), f"{key} began beside {len(mine)} others"
        task = next(task for task in workflow.tasks if task.id == key.task_id)
        for other in (*task.depends_on, *task.after):
            assert all(each.task_id != other for each in mine), f"{key} began while {other} lived"
        for other in task.depends_on:
            ends = [e for e in self.world.trace if isinstance(e, End) and e.key[:2] == (key.workflow_id, other)]
            assert ends, f"{key} began before {other}"
            assert any(end.outcome is Outcome.SUCCEEDED for end in ends), f"{key} began and {other} had not succeeded"

    def _states(self) -> dict[str, str]:
        found = {}
        for workflow_id in self.workflows:
            try:
                checkpoint = self.person.find(workflow_id).workflow()
            except NotFound:
                found[workflow_id] = "lost"
                continue
            found[workflow_id] = str(checkpoint.state) if checkpoint else "queued"
        return found

    def _is_over(self) -> bool:
        if self.world.living() or any(each.orchestrator.running for each in self.alive):
            return False
        if any(self.person.pending_requests()):
            return False
        over = True
        for workflow_id, state in self._states().items():
            if state == WorkflowState.PAUSED and not self._waits_for_a_person(workflow_id):
                self._request("resume", workflow_id)
                over = False
            elif state not in {*ENDED_WORKFLOWS, WorkflowState.PAUSED}:
                over = False
        return over and not any(map(self._runs, self.workflows))

    def _runs(self, workflow_id: str) -> bool:
        """Whether its files say that an attempt is under way: an orchestrator that has just begun does not know yet."""
        return any(checkpoint.state is TaskState.RUNNING for checkpoint in self.person.workflow(workflow_id).tasks())

    def _waits_for_a_person(self, workflow_id: str) -> bool:
        return any(checkpoint.held for checkpoint in self.person.workflow(workflow_id).tasks())

    def _check(self) -> None:
        assert self.person.incoming_ids() == []
        assert self.person.claimed_ids() == sorted(self.workflows), "a workflow was lost"
        for workflow_id, workflow in self.workflows.items():
            self._check_workflow(workflow_id, workflow)
        self._check_after()

    def _check_workflow(self, workflow_id: str, workflow: Workflow) -> None:
        folder = self.person.workflow(workflow_id)
        retries = self.retried.get(workflow_id, 0)
        checkpoint = folder.workflow()
        assert checkpoint is not None
        states = []
        for task in workflow.tasks:
            said = folder.task(task.id)
            states.append(said.state)
            assert said.state is not TaskState.RUNNING
            effects = self.world.effects.get((workflow_id, task.id), 0)
            if task.operation != "work.again":
                assert effects <= 1 + retries, f"{workflow_id}/{task.id} was done {effects} times"
            if said.state is TaskState.SUCCEEDED:
                assert effects >= 1, f"{workflow_id}/{task.id} is called done and was not"
                assert said.last is not None
                record = folder.outcome(task.id, said.last.number)
                assert record is not None
                assert record.outcome is Outcome.SUCCEEDED
            numbers = [attempt.number for attempt in said.attempts]
            assert numbers == sorted(set(numbers))  # with gaps, where an attempt never began
        if checkpoint.state is WorkflowState.SUCCEEDED:
            assert set(states) == {TaskState.SUCCEEDED}
        elif checkpoint.state is WorkflowState.FAILED:
            assert TaskState.FAILED in states or TaskState.CANCELLED in states

    def _check_after(self) -> None:
        """Nothing of what a task comes after began once it had begun, unless a person asked for it again."""
        begun = [each.key for each in self.world.trace if isinstance(each, Begin)]
        for i, key in enumerate(begun):
            if self.retried.get(key.workflow_id):
                continue
            task = next(task for task in self.workflows[key.workflow_id].tasks if task.id == key.task_id)
            rest = [other for other in begun[i:] if other.workflow_id == key.workflow_id]
            late = [other for other in rest if other.task_id in task.after]
            assert not late, f"{late} began after {key}"

    def close(self) -> None:
        for incarnation in list(self.alive):
            self._die(incarnation)
        self.world.close()
        self.person.close()


def run_history(seed: int, root: Path) -> History:
    """Run one history; an AssertionError, or any other error, names the seed."""
    with pytest.MonkeyPatch.context() as patched:
        history = History(seed, root, patched)
        try:
            history.run()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        finally:
            history.close()
    return history
