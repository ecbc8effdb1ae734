"""A task that takes the host down each time: it fails in the end, whatever the disk had not written at each crash."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioning.core import manifest
from provisioning.core.states import ENDED_WORKFLOWS, Outcome, TaskState, WorkflowState
from provisioning.core.workflow import INTERRUPTIONS_ALLOWED, Retry, Task, TaskCheckpoint, Workflow
from tests.simulation import promises
from tests.simulation.history import History
from tests.simulation.processes import Incarnation
from tests.simulation.values import submission
from tests.simulation.worker import Begin
from tests.unsynced import Unsynced

MANY_STEPS = 2000
BAD = "bad"
"""The task whose attempts take the host down as soon as they have begun."""


class CrashingHost:
    """A host that goes down whenever an attempt of the bad task begins, until none does any more."""

    def __init__(self, root: Path, patched: pytest.MonkeyPatch) -> None:
        self.history = History(3, root, patched)
        self._unsynced = Unsynced(patched)
        self._seen = 0

    def submit(self, workflow: Workflow) -> str:
        """Submit a workflow; its workflow_id."""
        workflow_id = f"01kc{len(self.history.said.workflows):022}"
        self.history.said.workflows[workflow_id] = workflow
        data = manifest.write(workflow, form="json")
        facts = {"tasks": len(workflow.tasks), "digest": hashlib.sha256(data).hexdigest()}
        self.history.person.submit(data, "json", submission(workflow_id, **facts))
        return workflow_id

    def run(self) -> int:
        """Let everything come to its end, however often the host has to be started; how often it went down."""
        crashes = 0
        for _ in range(MANY_STEPS):
            if not self.history.alive:
                self.history.alive.append(Incarnation(self.history.world, self.history.config))
            if self._is_over():
                return crashes
            self.history._step()
            begun = [each.key for each in self.history.world.trace if isinstance(each, Begin)]
            if any(key.task_id == BAD for key in begun[self._seen :]):
                crashes += 1
                for incarnation in list(self.history.alive):
                    self.history._die(incarnation)
                self.history.world.power_cut()
                self._unsynced.lose()
            self._seen = len(begun)
        raise AssertionError(
            f"{crashes} crashes, and no end: {promises.states(self.history.person, self.history.said)}"
        )

    def _is_over(self) -> bool:
        """Whether every workflow has ended or waits for a person."""
        return {*promises.states(self.history.person, self.history.said).values()} <= {
            *ENDED_WORKFLOWS,
            WorkflowState.PAUSED,
        }

    def task(self, workflow_id: str, task_id: str) -> TaskCheckpoint:
        """A task's checkpoint."""
        return self.history.person.workflow(workflow_id).task(task_id)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[CrashingHost]:
    """The host, with no other workflow on it."""
    logging.getLogger("provisioning").setLevel(logging.CRITICAL + 1)
    with pytest.MonkeyPatch.context() as patched:
        made = CrashingHost(tmp_path / "spool", patched)
        yield made
        made.history.close()
    logging.getLogger("provisioning").setLevel(logging.NOTSET)


def again(task_id: str, **more: Any) -> Task:
    """An idempotent task."""
    return Task(task_id, "work.again", retry=Retry(max_attempts=9, initial_delay_seconds=0.0), **more)


def interruptions(checkpoint: TaskCheckpoint) -> int:
    """How often an attempt of the task was interrupted."""
    return [attempt.outcome for attempt in checkpoint.attempts].count(Outcome.INTERRUPTED)


@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_task_that_takes_the_host_down_is_failed_in_the_end(host: CrashingHost, before: int) -> None:
    """The record of its first start may be lost, as it need not be synced; every one after a crash is."""
    chain = [again(f"t{number}", depends_on=(f"t{number - 1}",) if number else ()) for number in range(before)]
    bad = again(BAD, depends_on=tuple(task.id for task in chain))
    workflow_id = host.submit(Workflow("w", (*chain, bad)))
    assert host.run() <= INTERRUPTIONS_ALLOWED + 1
    checkpoint = host.task(workflow_id, BAD)
    assert (checkpoint.state, checkpoint.reason) == (TaskState.FAILED, "interrupted-too-often")
    assert interruptions(checkpoint) == INTERRUPTIONS_ALLOWED


def test_a_task_that_must_not_run_twice_takes_the_host_down_once(host: CrashingHost) -> None:
    workflow_id = host.submit(Workflow("w", (Task(BAD, "work.once"),)))
    assert host.run() == 1
    checkpoint = host.task(workflow_id, BAD)
    assert (checkpoint.state, checkpoint.held, interruptions(checkpoint)) == (TaskState.PENDING, True, 1)


def test_what_ran_beside_it_is_counted_by_the_same_rule(host: CrashingHost) -> None:
    """Nobody can tell which of them did it: each crash counts against all that was under way, and nothing else."""
    guilty = host.submit(Workflow("guilty", (again(BAD),)))
    innocent = [host.submit(Workflow("innocent", (again("a"), again("b", depends_on=("a",))))) for _ in range(3)]
    crashes = host.run()
    assert host.task(guilty, BAD).reason == "interrupted-too-often"
    for workflow_id in innocent:
        for task_id in ("a", "b"):
            checkpoint = host.task(workflow_id, task_id)
            too_often = interruptions(checkpoint) == INTERRUPTIONS_ALLOWED
            assert interruptions(checkpoint) <= crashes
            assert too_often == (checkpoint.reason == "interrupted-too-often")
