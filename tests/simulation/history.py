"""One random history: workflows, failures, crashes, power cuts, full disks, requests; then calm, and what must be true.

`python -m tests.simulation.history SEED` repeats one; `FIRST-LAST` does all of a range.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import logging
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from provisioning.config import Bounds, Config, Environment, Paths
from provisioning.config import Orchestrator as OrchestratorSettings
from provisioning.core import manifest
from provisioning.core.states import ENDED_WORKFLOWS, WorkflowState
from provisioning.errors import NotFound, Refused, SpoolUnusable
from provisioning.execution.executor import HEED_SECONDS
from provisioning.execution.executors import Executors
from provisioning.orchestrator import claim, loop, recovery, requests
from provisioning.orchestrator.retention import Cleanup, Rule
from provisioning.storage import checkpoint, files
from provisioning.storage import spool as spool_module
from provisioning.storage.spool import Spool
from tests.simulation import promises
from tests.simulation.calls import CHANGING, Calls, Crash, Fault
from tests.simulation.disk import Disk
from tests.simulation.processes import Incarnation, SimulatedExecutor, drop_scratch
from tests.simulation.promises import Said
from tests.simulation.values import submission
from tests.simulation.workload import GROUPS, load_nulib, random_workflow
from tests.simulation.world import World

MOST_WORKFLOWS = 4
STEPS = 1000
"""More ticks than any history needs: who needs them has no end."""
SPINNING = 30
"""So many ticks in a row without anything to do are a loop that does not sleep."""
HOUR = 3600.0
CALM_HOURS = 10_000
"""The clock is set so far ahead in the end: what waits for an instant that somebody wrote has to begin."""


class History:
    """A seed's history on a spool of its own."""

    def __init__(self, seed: int, root: Path, patched: pytest.MonkeyPatch) -> None:
        self.chance, self._heeding = random.Random(seed), random.Random(seed)
        self.person = Spool.create(root)
        self.calls = Calls(patched)
        self.disk = Disk(root) if self.chance.random() < 0.5 else None
        self.calls.disk = self.disk
        self.calls.before, self.calls.after = self._before, self._after
        self.world = World(seed, self.person, self.calls)
        self.said = Said()
        self.world.check = lambda key: promises.may_begin(self.world, self.said, key)
        slots = OrchestratorSettings(slots=self.chance.randint(1, 4))
        self.config = Config(Paths(root, root), slots, Bounds(grace_seconds=1.0), Environment(), groups=GROUPS)
        self.alive: list[Incarnation] = []
        self.sleeps: list[float] = []
        self._crash_at = 0
        self._fault: Fault | None = None
        self._asked, self._spun = "", 0
        self._patch(patched)

    def _patch(self, patched: pytest.MonkeyPatch) -> None:
        for modules, name in (((claim, loop, requests), "instant"), ((claim, recovery, checkpoint), "boot_id")):
            for module in modules:
                patched.setattr(module, name, getattr(self.world, name))
        for name in ("holders", "end_holders", "send_signal"):
            patched.setattr(recovery, name, getattr(self.world, name))
        for module in (files, spool_module):
            patched.setattr(module, "new_ulid", self.world.new_ulid)
        for module in (requests, spool_module):
            patched.setattr(module, "now", self.world.wall)
        patched.setattr(requests, "new_ulid", self._new_request_id)
        patched.setattr(loop, "wait_for_news", self._sleep)

    def _sleep(self, executors: Executors, _others: Any, seconds: float, heed: Callable[[], bool]) -> list[Any]:
        assert isinstance(executors.local, SimulatedExecutor)
        while executors.local.has_news() and self._heeding.random() < 0.5 and heed():
            seconds = min(seconds, HEED_SECONDS)
        self.sleeps.append(0.0 if executors.local.has_news() else seconds)
        return []

    def _new_request_id(self) -> str:
        self._asked = self.world.new_ulid()
        return self._asked

    # What goes wrong at a call

    def _before(self, name: str) -> None:
        fault = self._fault
        if fault is not None and name in fault.calls:
            fault.left -= 1
            if fault.left == 0:
                self._fault = None
            raise OSError(fault.number, os.strerror(fault.number))
        self._crash_at -= 1
        if self._crash_at == 0 and self.chance.random() < 0.5:
            raise Crash

    def _after(self, name: str) -> None:
        if self._crash_at == 0:
            self._crash_at = -1
            raise Crash

    # What happens

    def run(self) -> None:
        """Chaos for a while, then calm until all has ended; then the checks."""
        self.alive.append(Incarnation(self.world, self.config))
        for _ in range(self.chance.randint(1, 2)):
            self._submit()
        for _ in range(self.chance.randint(5, 30)):
            for _ in range(self.chance.choice([1, 1, 1, 3])):
                self._chaos()
            self._step()
        self._fault, self._crash_at = None, 0
        self.world.wall_set_by = CALM_HOURS * HOUR
        for _ in range(STEPS):
            if not self.alive:
                self.alive.append(Incarnation(self.world, self.config))
            if self._is_over():
                break
            self._step()
        else:
            raise AssertionError(f"it has no end: {promises.states(self.person, self.said)}")
        promises.check_all(self.person, self.world, self.said)

    @contextmanager
    def _as_person(self) -> Iterator[None]:
        """A command that a person types; its process may be killed, and its disk may refuse."""
        try:
            with self.calls.life(), suppress(Refused, NotFound, SpoolUnusable):
                yield
        except Crash:
            drop_scratch(self.person)

    def _submit(self) -> None:
        if len(self.said.workflows) == MOST_WORKFLOWS:
            return
        workflow_id = f"01kc{len(self.said.workflows):022}"
        facts: dict[str, Any] = {}
        if self.said.ids and self.chance.random() < 0.4:
            facts["id"] = self.chance.choice(list(self.said.ids))
            workflow = self.said.ids[facts["id"]]
        else:
            workflow = random_workflow(self.chance)
            if self.chance.random() < 0.3:
                facts["id"] = f"id-{len(self.said.ids)}"
                self.said.ids[facts["id"]] = workflow
        data = manifest.write(workflow, form="json")
        digest = hashlib.sha256(data).hexdigest()
        facts |= {"priority": workflow.priority, "tasks": len(workflow.tasks), "digest": digest}
        if self.chance.random() < 0.2:
            facts["not_before"] = self.world.wall() + timedelta(seconds=self.chance.choice([1, 10, 24 * HOUR]))
        self.said.workflows[workflow_id] = workflow
        with self._as_person():
            said = self.person.submit(data, "json", submission(workflow_id, **facts))
            self.said.accepted.add(said)
            if name := facts.get("id"):
                assert self.said.of_ids.setdefault(name, said) == said, f"{name} is two workflows"

    def _chaos(self) -> None:
        deeds: list[tuple[float, Callable[[], None]]] = [
            (0.08, self._kill_orchestrator),
            (0.12, self._crash_soon),
            (0.08, self._kill_worker),
            (0.03, self._power_cut),
            (0.09, self._break_disk),
            (0.12, self._ask),
            (0.03, self._submit),
            (0.02, lambda: self.world.set_clock(self.chance.choice([-72, -1, 1, 72]) * HOUR)),
            (0.02, self._clean_up),
            (0.01, self._damage),
        ]
        at = self.chance.random()
        for share, deed in deeds:
            at -= share
            if at < 0:
                deed()
                break
        if len(self.alive) < 2 and self.chance.random() < (0.6 if not self.alive else 0.1):
            self.alive.append(Incarnation(self.world, self.config))
            if self.chance.random() < 0.3:  # it does not get far, and the next one may fare no better
                self._crash_at = self.chance.randint(1, 12)

    def _kill_orchestrator(self) -> None:
        if self.alive:
            self._die(self.chance.choice(self.alive))

    def _crash_soon(self) -> None:
        """Whoever makes the call, an orchestrator, a worker or a person's command, ends at it."""
        self._crash_at = self.chance.choice([self.chance.randint(1, 8), self.chance.randint(1, 60)])

    def _kill_worker(self) -> None:
        if living := [worker for worker in self.world.workers.values() if worker.alive]:
            self.world.kill(self.chance.choice(living), all_of_it=self.chance.random() < 0.5)

    def _break_disk(self) -> None:
        if self._fault is not None:
            self._fault = None
            return
        number, one = self.chance.choice([errno.ENOSPC, errno.EIO, errno.EDQUOT]), self.chance.choice(CHANGING)
        self._fault = Fault(number, self.chance.choice([CHANGING, (one,)]), self.chance.choice([1, 1, 3, -1]))

    def _power_cut(self) -> None:
        for incarnation in list(self.alive):
            self._die(incarnation)
        drop_scratch(self.person)
        self.world.power_cut()
        if self.disk is not None:
            with self.calls.unwatched():
                self.disk.cut(self.chance)
        self.person = Spool.open(self.person.root)
        self.world.spool = self.person

    def _ask(self) -> None:
        verb = self.chance.choice(["cancel", "pause", "resume", "resume", "retry", "retry", "rollback"])
        workflow_id = self.chance.choice(list(self.said.workflows))
        names = [task.id for task in self.said.workflows[workflow_id].tasks]
        tasks = (self.chance.choice(names),) if verb[0] == "r" and self.chance.random() < 0.5 else ()
        self._request(verb, workflow_id, tasks if verb != "resume" else ())

    def _request(self, verb: str, workflow_id: str, tasks: tuple[str, ...] = ()) -> None:
        self._asked = ""
        with self._as_person():
            requests.ask(self.person, self.config, load_nulib, verb, workflow_id, operator="alice", tasks=tasks)
            self.said.requests.setdefault(workflow_id, set()).add(self._asked)
        if self._asked and verb in ("retry", "rollback"):  # also where its asker was told that it failed
            self.said.retried[workflow_id] = self.said.retried.get(workflow_id, 0) + 1

    def _clean_up(self) -> None:
        ended = {name for name, state in promises.states(self.person, self.said).items() if state in ENDED_WORKFLOWS}
        self.said.cleaned |= ended
        with self._as_person():
            Cleanup(self.person, Rule(self.chance.choice([0.0, 5.0]), None), self.world.instant().wall).finish()

    def _damage(self) -> None:
        """Somebody's editor, or a bad sector: a file of a claimed workflow is no longer what it was."""
        found = [path for path in sorted(self.person.workflows.glob("*/**/*.json")) if path.is_file()]
        if found:
            path = self.chance.choice(found)
            self.said.damaged.add(path.relative_to(self.person.workflows).parts[0])
            path.write_bytes(path.read_bytes()[: self.chance.choice([0, 1, 20])])

    def _die(self, incarnation: Incarnation) -> None:
        self.alive.remove(incarnation)
        incarnation.die()

    @contextmanager
    def _as(self, incarnation: Incarnation) -> Iterator[None]:
        try:
            with self.calls.life():
                yield
        except Crash:
            self._die(incarnation)

    def _step(self) -> None:
        """Every orchestrator does one tick; then the time passes until one of them or a worker wants something."""
        self.sleeps = []
        for incarnation in list(self.alive):
            with self._as(incarnation):
                incarnation.orchestrator.tick()
                incarnation.orchestrator.wait([])
        seconds = min([*self.sleeps, 60.0 if (event := self.world.next_event()) is None else event, 60.0])
        idle = seconds == 0.0 and event != 0.0 and not any(each.executor.has_news() for each in self.alive)
        self._spun = self._spun + 1 if idle else 0
        assert self._spun < SPINNING, "an orchestrator does not sleep"
        self.world.advance(max(seconds, 0.001) if seconds else 0.0)  # two clocks of floats differ in the last bits

    def _is_over(self) -> bool:
        unclaimed = set(self.person.incoming_ids()) - self.said.damaged  # or taken back by a power cut
        if unclaimed or self.world.next_event() is not None or self.world.living():
            return False
        if any(each.orchestrator.running or each.executor.has_news() for each in self.alive):
            return False
        if any(request.workflow_id not in self.said.damaged for _, request in self.person.pending_requests()):
            return False
        over = True
        for workflow_id, state in promises.states(self.person, self.said).items():
            if state == WorkflowState.PAUSED and not promises.waits_for_a_person(self.person, workflow_id):
                self._request("resume", workflow_id)
                over = False
            elif state not in {*ENDED_WORKFLOWS, WorkflowState.PAUSED} or promises.runs(self.person, workflow_id):
                over = False
        return over

    def close(self) -> None:
        """End every process."""
        for incarnation in list(self.alive):
            self._die(incarnation)
        self.world.close()
        drop_scratch(self.person)


def run_history(seed: int, root: Path) -> History:
    """Run one history; an AssertionError, or any other error, names the seed and how to see it again."""
    with pytest.MonkeyPatch.context() as patched:
        history = History(seed, root, patched)
        try:
            history.run()
        except Exception as error:
            error.add_note(f"seed {seed}; again: PYTHONHASHSEED=0 python -m tests.simulation.history {seed}")
            raise
        finally:
            history.close()
    return history


def run_histories(seeds: Iterable[int]) -> None:
    """Run them, each on a spool in memory where there is such a place: what they break is no disk."""
    logging.disable()  # crashes and full disks are logged, thousands of them
    memory = "/dev/shm"
    try:
        with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as place:
            for seed in seeds:
                root = Path(place, f"spool-{seed}")
                run_history(seed, root)
                shutil.rmtree(root)
    finally:
        logging.disable(logging.NOTSET)


def main() -> None:
    """Repeat one history, or run a range of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", help="SEED, or FIRST-LAST")
    first, _, last = parser.parse_args().seeds.partition("-")
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order in sets is part of a history
        command = [sys.executable, "-m", "tests.simulation.history", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | {"PYTHONHASHSEED": "0"})
    run_histories(range(int(first), int(last or first) + 1))


if __name__ == "__main__":
    main()
