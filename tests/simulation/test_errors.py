"""The disk refuses, at every call of a small run, once or for a while: it ends as if nothing had been.

In the end the power goes: what anyone was told is there, so nobody was told of bytes whose sync had failed.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioning.core import manifest
from provisioning.core.states import Outcome
from provisioning.core.workflow import Retry, Task, TaskError, Workflow
from provisioning.errors import SpoolUnusable
from provisioning.execution.executor import Key
from tests import figures
from tests.simulation import history as history_module
from tests.simulation import promises
from tests.simulation.disk import Disk
from tests.simulation.history import STEPS, History
from tests.simulation.processes import Incarnation
from tests.simulation.values import submission
from tests.simulation.world import World

HEALS_SECONDS = 30.0
"""How long a disk refuses that does so for good, until somebody mends it."""
ENOUGH_POINTS = 500

WORK = Workflow(
    "work",
    (
        Task("good", "work.probed", on_interrupt="probe"),
        Task("flaky", "work.again", depends_on=("good",), retry=Retry(max_attempts=2, initial_delay_seconds=1.0)),
        Task("bad", "work.again", after=("flaky",)),
        Task("late", "work.again"),
    ),
    on_failure="continue",
)
CANCELLED = Workflow("cancelled", (Task("slow", "work.again"),))


class ScriptedWorld(World):
    """Every task ends as its name says; a flaky one fails the first time that it comes to its end."""

    flaked = False

    def ends(self, key: Key, fate: random.Random) -> Outcome:
        ends = {"bad": Outcome.FAILED, "late": Outcome.TIMED_OUT}
        if key.task_id == "flaky" and not self.flaked:
            self.flaked = True
            return Outcome.FAILED
        return ends.get(key.task_id, Outcome.SUCCEEDED)

    def _probe(self, key: Key, fate: random.Random) -> tuple[Outcome, TaskError | None]:
        done = bool(self.effects.get((key.workflow_id, key.task_id)))
        return (Outcome.SUCCEEDED, None) if done else (Outcome.FAILED, TaskError("work::not-found"))


class ErrorRun(History):
    """The same run each time, but for a disk that refuses from its call number `at` on."""

    def __init__(self, root: Path, patched: pytest.MonkeyPatch, *, at: int = 0, number: int = 0, once: bool = True):
        patched.setattr(history_module, "World", ScriptedWorld)
        super().__init__(0, root, patched)
        self.disk = self.calls.disk = Disk(root)
        self.at, self.number, self.once = at, number, once
        self.hit = ""
        self._hit_at, self._crash_at = 0.0, -1
        self.names: list[str] = []
        self.points = 0
        """Calls before all was done."""

    def _before(self, name: str) -> None:
        self.names.append(name)
        if not self.at or len(self.names) < self.at:
            return
        if self.hit and (self.once or self.world.elapsed > self._hit_at + HEALS_SECONDS):
            return
        if not self.hit:
            self.hit, self._hit_at = name, self.world.elapsed
        raise OSError(self.number, os.strerror(self.number))

    def run(self) -> None:
        """Submit two workflows, cancel one of them, work them to their ends, and cut the power."""
        self.alive.append(Incarnation(self.world, self.config))
        work, cancelled = self._put(WORK), self._put(CANCELLED)
        for _ in range(STEPS):
            self._step()
            running = any(worker.key.workflow_id == cancelled for worker in self.world.living())
            if running and not self.said.requests.get(cancelled):
                self._request("cancel", cancelled)
            if self._is_over():
                break
        else:
            raise AssertionError(f"it has no end: {promises.states(self.person, self.said)}")
        self.at, self.points = 0, len(self.names)
        self._power_cut()
        promises.check_all(self.person, self.world, self.said)
        states = promises.states(self.person, self.said)
        if states[cancelled] == "succeeded" and not self.said.requests.get(cancelled):
            states[cancelled] = "cancelled"  # it was done before the disk took the request
        tasks = {task.id: str(self.person.workflow(work).task(task.id).state) for task in WORK.tasks}
        self.end = (states[work], states[cancelled], tasks)

    def _is_over(self) -> bool:
        """Also not before the orchestrators have let go: they say again what the disk refused to keep."""
        return super()._is_over() and not any(each.orchestrator._held for each in self.alive)

    def _put(self, workflow: Workflow) -> str:
        """Submit it until that is said to have worked; what was refused must not be there."""
        data = manifest.write(workflow, form="json")
        while True:
            workflow_id = f"01kc{len(self.said.workflows):022}"
            self.said.workflows[workflow_id] = workflow
            facts = {"tasks": len(workflow.tasks), "digest": hashlib.sha256(data).hexdigest()}
            try:
                self.person.submit(data, "json", submission(workflow_id, **facts))
            except SpoolUnusable:
                if self.once:
                    assert self.person.folder_path(workflow_id) is None, "it is refused, and there"
                self.world.advance(5.0)
                continue
            self.said.accepted.add(workflow_id)
            return workflow_id


def run(at: int = 0, number: int = 0, *, once: bool = True) -> ErrorRun:
    memory = "/dev/shm"
    with (
        tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as place,
        pytest.MonkeyPatch.context() as patched,
    ):
        made = ErrorRun(Path(place, "spool"), patched, at=at, number=number, once=once)
        try:
            made.run()
        except Exception as error:
            error.add_note(f"{os.strerror(number)} at call {at} ({made.hit}), {'once' if once else 'for a while'}")
            raise
        finally:
            made.close()
            shutil.rmtree(Path(place, "spool"), ignore_errors=True)
    return made


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def undisturbed() -> ErrorRun:
    return run()


def sweep(undisturbed: ErrorRun, points: range) -> int:
    """The disk refuses at each of these calls, in every way; how often it did."""
    hits = 0
    for at in points:
        for number in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            for once in (True, False):
                found = run(at, number, once=once)
                assert found.hit == undisturbed.names[at - 1]
                assert found.end == undisturbed.end, f"{os.strerror(number)} at call {at}, {once=}"
                hits += 1
    figures.note("simulated run with a refused call", points=hits)
    return hits


def test_the_undisturbed_run_ends_in_every_way(undisturbed: ErrorRun) -> None:
    states = {"good": "succeeded", "flaky": "succeeded", "bad": "failed", "late": "failed"}
    assert undisturbed.end == ("failed", "cancelled", states)
    assert {"open", "write", "fsync", "rename", "link", "unlink", "mkdir"} <= set(undisturbed.names)
    assert "posix_fallocate" in undisturbed.names


def test_errors_at_every_tenth_call(undisturbed: ErrorRun) -> None:
    assert sweep(undisturbed, range(1, undisturbed.points + 1, 10)) > ENOUGH_POINTS / 10


@pytest.mark.long
@pytest.mark.timeout(600)
def test_errors_at_every_call(undisturbed: ErrorRun) -> None:
    assert sweep(undisturbed, range(1, undisturbed.points + 1)) >= ENOUGH_POINTS
