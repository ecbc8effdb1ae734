"""Backups of a spool that an orchestrator works: each is sound, and a copy made of it is worked to its end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provisioning.core.states import ENDED_WORKFLOWS, TaskState
from provisioning.storage.check import check
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

Gates = Callable[[str], Gate]

WORKFLOWS = 6


def command(site: Installation, *arguments: str) -> str:
    """What a command answers."""
    done = subprocess.run(
        [sys.executable, "-m", "provisioning", *arguments],
        env=site.environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def marking(workflow: int, number: int) -> dict[str, Any]:
    """A task that leaves its mark in the file of whoever runs it; every other may not run twice."""
    task_id = f"t{number}"
    script = f"echo {workflow}.{task_id} >> $MARKS; sleep 0.02"
    operation = "trial.again" if number % 2 else "trial.shell"
    waits = [f"t{number - 2}"] if number >= 2 else []
    return {"id": task_id, "operation": operation, "params": {"script": script}, "depends_on": waits}


def copy_of(site: Installation, backup: Path, root: Path, cache_dir: Path) -> Installation:
    """An installation of its own on a spool that is restored from the backup."""
    root.mkdir()
    command(site, "spool", "restore", str(backup), str(root / "spool"))
    return Installation(root, cache_dir, environment_marks=root / "marks")


def check_copy(copy: Installation, workflows: list[str]) -> None:
    """Work the copy until nothing can start: what was done is not done again, what may not run twice is held."""
    assert check(copy.spool.root) == []
    done = {
        (workflow_id, task.task_id)
        for workflow_id in copy.spool.claimed_ids()
        for task in copy.folder(workflow_id).tasks()
        if task.last and copy.folder(workflow_id).outcome(task.task_id, task.last.number)
    }
    there = copy.spool.workflow_ids()
    assert set(there) <= set(workflows)
    copy.drain(max_wait=10)
    assert check(copy.spool.root) == []
    lines = copy.mark_lines()
    for workflow_id in there:
        states = {task.task_id: task for task in copy.folder(workflow_id).tasks()}
        ended = copy.state(workflow_id) in ENDED_WORKFLOWS
        assert ended or any(task.held for task in states.values()), copy.said()
        for task_id, task in states.items():
            count = lines.count(f"{workflows.index(workflow_id)}.{task_id}")
            if (workflow_id, task_id) in done or task.held:
                assert count == 0
            else:
                assert count == (task.state is TaskState.SUCCEEDED)
        if copy.state(workflow_id) == "succeeded":
            assert {task.state for task in states.values()} == {TaskState.SUCCEEDED}


def test_every_backup_of_a_busy_spool_is_sound_and_goes_on(site: Installation, tmp_path: Path, cache_dir: Path) -> None:
    site.settings(environment_marks=site.marks)
    workflows: list[str] = []
    backups: list[Path] = []
    process = site.orchestrator()

    def all_ended() -> bool:
        if len(workflows) < WORKFLOWS:  # each of so many backups is made beside new work, however slow the machine is
            workflows.append(site.submit([marking(len(workflows), task) for task in range(8)]))
        assert check(site.spool.root) == []  # whoever looks beside a busy orchestrator finds nothing wrong
        backups.append(tmp_path / f"{len(backups)}.tgz")
        command(site, "spool", "backup", str(backups[-1]))
        ended = all(site.state(workflow_id) in ENDED_WORKFLOWS for workflow_id in workflows)
        return ended and len(workflows) == WORKFLOWS

    wait_for(all_ended, 120)
    process.terminate()
    process.wait(20)
    assert sorted(site.mark_lines()) == sorted(f"{w}.t{t}" for w in range(WORKFLOWS) for t in range(8))
    chosen = backups[:: max(1, len(backups) // 6)]
    for number, backup in enumerate(chosen):
        copy = copy_of(site, backup, tmp_path / f"copy.{number}", cache_dir)
        try:
            check_copy(copy, workflows)
        finally:
            copy.close()


@pytest.mark.parametrize("operation", ["trial.again", "trial.shell"])
def test_what_ran_on_the_original_counts_as_interrupted_in_the_copy(
    site: Installation, gate: Gates, tmp_path: Path, cache_dir: Path, operation: str
) -> None:
    """The original's worker lives all the while, on the same host in the same boot."""
    one = gate("one")
    workflow_id = site.submit([{"id": "a", "operation": operation, "params": {"script": one.script}}])
    site.orchestrator()
    one.reached()
    command(site, "spool", "backup", str(tmp_path / "b.tar"))
    copy = copy_of(site, tmp_path / "b.tar", tmp_path / "copy", cache_dir)
    try:
        copy.orchestrator()
        if operation == "trial.again":
            one.open(2)
            assert copy.wait_ended(workflow_id) == "succeeded"
            assert copy.outcomes(workflow_id, "a") == ["interrupted", "succeeded"]
        else:
            copy.wait_state(workflow_id, "paused")
            assert copy.task(workflow_id, "a").held
        assert site.states(workflow_id) == {"a": "running"}
    finally:
        copy.close()
    one.open()
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "a") == ["succeeded"]
