"""Depth and number: what one Nushell process cannot do, tasks do."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.installation import Installation

pytestmark = pytest.mark.nu

DEPTH = 60
"""More than Nushell's recursion limit of 50."""


def test_nested_deeper_than_nushell_allows_fails_in_one_process(site: Installation, tmp_path: Path) -> None:
    """The limit that motivates a process per task: 60 commands, each calling the next."""
    lines = [f"def level-{number} [] {{ level-{number + 1} }}" for number in range(DEPTH)]
    file = tmp_path / "deep.nu"
    file.write_text("\n".join([f"def level-{DEPTH} [] {{ print done }}", *reversed(lines), "level-0"]))
    ended = subprocess.run(
        [site.environment["PROVISIONING_NU"], "-n", "--no-std-lib", str(file)], capture_output=True, check=False
    )
    assert ended.returncode != 0
    assert b"done" not in ended.stdout
    assert b"nu::shell::recursion_limit_reached" in ended.stderr


def test_the_same_depth_as_tasks_succeeds(site: Installation) -> None:
    tasks = [
        {"id": f"level-{n}", "operation": "selftest.noop", "depends_on": [f"level-{n - 1}"] if n else []}
        for n in range(DEPTH + 1)
    ]
    workflow_id = site.run(tasks)
    assert site.state(workflow_id) == "succeeded"
    ends = [site.outcome(workflow_id, f"level-{n}") for n in range(DEPTH + 1)]
    assert all(one.ended_at <= next_.started_at for one, next_ in pairwise(ends))


@pytest.mark.timeout(300)
def test_two_thousand_tasks_each_once_and_in_order(site: Installation) -> None:
    """Forty chains of fifty: every task runs once, after the one before it in its chain."""
    chains, length = 40, 50
    tasks: list[dict[str, Any]] = [
        {"id": f"c{c}-{n}", "operation": "selftest.noop", "depends_on": [f"c{c}-{n - 1}"] if n else []}
        for n in range(length)
        for c in range(chains)
    ]
    workflow_id = site.submit(tasks)
    process = site.start("orchestrator", "run", "--until-empty", "--slots", "10")
    assert process.wait(280) == 0, site.said()
    assert site.workflow(workflow_id).counts == {"succeeded": chains * length}
    folder = site.folder(workflow_id)
    ends = {(c, n): site.outcome(workflow_id, f"c{c}-{n}") for c in range(chains) for n in range(length)}
    assert all(ends[c, n - 1].ended_at <= ends[c, n].started_at for c in range(chains) for n in range(1, length))
    assert len(list((folder.path / "outcomes").iterdir())) == chains * length
    begun = [event["task_id"] for event in folder.events() if event.get("state") == "running"]
    assert sorted(begun) == sorted(task["id"] for task in tasks)
