"""Thousands of crash schedules: nothing lost, nothing doubled, nothing too early, and every workflow ends."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from provisioning.core import attempts
from provisioning.core.scheduler import Schedule
from provisioning.core.workflow import Workflow
from provisioning.orchestrator import recovery
from provisioning.storage import files
from provisioning.storage.lock import Lock
from tests.simulation import world
from tests.simulation.history import run_history


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Where a write costs little; what these tests break is no disk."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Crashes and full disks are logged, thousands of them."""
    log = logging.getLogger("provisioning")
    log.disabled, kept = True, log.level
    log.setLevel(logging.CRITICAL + 1)
    yield
    log.disabled = False
    log.setLevel(kept)


def run_all(seeds: Iterable[int], place: Path) -> None:
    for seed in seeds:
        root = place / f"spool-{seed}"
        try:
            run_history(seed, root)
        finally:
            shutil.rmtree(root)


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_histories(first: int, place: Path) -> None:
    run_all(range(first, first + 50), place)


@pytest.mark.long
@pytest.mark.parametrize("first", range(200, 5200, 500))
def test_more_histories(first: int, place: Path) -> None:
    run_all(range(first, first + 500), place)


# The simulation can fail: each of these defects is found.


def ignore_locks(patched: pytest.MonkeyPatch) -> None:
    """Recovery calls an attempt interrupted without asking whether it lives."""
    patched.setattr(recovery, "attempt_is_alive", lambda path: False)
    patched.setattr(recovery, "lock_ended_attempt", files.open_log_to_lock)
    patched.setattr(files, "scratch_is_held", lambda path: False)


def ignore_dependencies(patched: pytest.MonkeyPatch) -> None:
    """The scheduler starts every task at once."""
    original = Schedule.__init__

    def careless(self: Schedule, workflow: Workflow, *rest: Any) -> None:
        tasks = tuple(msgspec.structs.replace(task, depends_on=(), after=()) for task in workflow.tasks)
        original(self, msgspec.structs.replace(workflow, tasks=tasks), *rest)

    patched.setattr(Schedule, "__init__", careless)


def rerun_everything(patched: pytest.MonkeyPatch) -> None:
    """What was interrupted is done again although it may have been done."""
    original = attempts.interrupted

    def careless(checkpoint: Any, task: Any, *rest: Any) -> Any:
        return original(checkpoint, msgspec.structs.replace(task, on_interrupt="rerun"), *rest)

    patched.setattr(attempts, "interrupted", careless)


def work_unasked(patched: pytest.MonkeyPatch) -> None:
    """A worker does not look whether its attempt was given up before it began."""
    patched.setattr(world, "_is_wanted", lambda *_args: True)


def share_locks(patched: pytest.MonkeyPatch) -> None:
    """A workflow may have two holders."""
    patched.setattr(Lock, "take", lambda self, *, wait=False: True)


def leave_outcomes(patched: pytest.MonkeyPatch) -> None:
    """Recovery finds an outcome and does not record it."""
    patched.setattr(recovery, "_ended", lambda *_args: None)


@pytest.mark.parametrize(
    "plant", [ignore_locks, ignore_dependencies, rerun_everything, work_unasked, share_locks, leave_outcomes]
)
def test_a_planted_defect_is_found(plant: Callable[[pytest.MonkeyPatch], None], place: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        plant(patched)
        with pytest.raises(Exception) as raised:
            run_all(range(200), place)
    assert any("seed" in note for note in raised.value.__notes__)
