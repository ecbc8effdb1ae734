"""Many small workflows, and orchestrators and workers that are killed again and again: none lost, none doubled."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from provisioning.core.states import ENDED_WORKFLOWS, Outcome
from provisioning.processes import send_signal
from provisioning.storage.check import check
from tests.crash.tracing import left_of
from tests.figures import ALL, Figures
from tests.installation import Installation
from tests.waiting import wait_for

pytestmark = [pytest.mark.nu, pytest.mark.timeout(1200)]

SEED = 20260102
SLOTS = 4
BATCH, UNDER_WAY = 10, 100
"""Workflows submitted one after the other, and as many as may be under way when more are."""
DRAIN_EVERY = 5
"""A drain beside the orchestrator is started after so many kills."""
RETRY = {"max_attempts": 3, "initial_delay": "10ms"}
STATES = [
    ("succeeded", {"noop": "succeeded"}),
    ("succeeded", {"mark": "succeeded"}),
    ("succeeded", {"noop": "succeeded", "note": "succeeded"}),
    ("succeeded", {"flaky": "succeeded"}),
    ("failed", {"mark": "succeeded", "noop": "succeeded", "bad": "failed"}),
]
"""How each kind of workflow ends, and its tasks."""


def kinds(site: Installation, name: str) -> list[list[dict[str, Any]]]:
    """The tasks of each kind of workflow, in the order of STATES; a mark says of which workflow and attempt it is."""
    mark = f"echo mark.{name}.$PROVISIONING_ATTEMPT >> {site.marks}"
    tried = f"{site.root}/tried/{name}"
    flaky = f"test -e {tried} || {{ touch {tried}; exit 1; }}"
    rerun = {"operation": "trial.shell", "params": {"script": mark}, "on_interrupt": "rerun"}
    note = {"operation": "trial.note", "params": {"file": str(site.marks), "line": f"note.{name}"}}
    noop = {"id": "noop", "operation": "selftest.noop"}
    return [
        [noop],
        [{"id": "mark", **rerun}],
        [noop, {"id": "note", **note, "on_interrupt": "probe", "depends_on": ["noop"]}],
        [{"id": "flaky", "operation": "trial.again", "params": {"script": flaky}, "retry": RETRY}],
        [{"id": "mark", **rerun}, {**noop, "depends_on": ["mark"]}, {"id": "bad", "operation": "selftest.fail"}],
    ]


class Soak:
    """One spool, the processes on it, and what they were given to do."""

    def __init__(self, site: Installation) -> None:
        self.site = site
        self.names: dict[str, str] = {}
        """By workflow_id."""
        self.drains: list[subprocess.Popen[bytes]] = []
        self.kills = 0
        self._open: set[str] = set()
        self.chance = random.Random(SEED)
        (site.root / "tried").mkdir()

    def submit(self, count: int) -> None:
        """Put so many workflows in."""
        for _ in range(count):
            name = str(len(self.names))
            tasks = kinds(self.site, name)[len(self.names) % len(STATES)]
            workflow_id = self.site.submit(tasks, name=f"soak-{name}", on_failure="continue")
            self.names[workflow_id] = name
            self._open.add(workflow_id)

    def under_way(self) -> int:
        """Workflows that have not ended."""
        self._open = {one for one in self._open if self.site.state(one) not in ENDED_WORKFLOWS}
        return len(self._open)

    def disturb(self, count: int, seconds: float, pause: tuple[float, float]) -> None:
        """Submit up to so many and, for so long, end each orchestrator by force after a pause of those bounds."""
        end = time.monotonic() + seconds
        for turn in itertools.count(1):
            if time.monotonic() > end or (len(self.names) == count and not self.under_way()):
                return
            process = self.site.orchestrator(slots=SLOTS)
            if turn % DRAIN_EVERY == 0:
                self.drains.append(self.site.start("orchestrator", "run", "--until-empty", "--slots", "2"))
            until = time.monotonic() + self.chance.uniform(*pause)
            while time.monotonic() < until and len(self.names) < count and self.under_way() < UNDER_WAY:
                self.submit(min(BATCH, count - len(self.names)))
            with pytest.raises(subprocess.TimeoutExpired):  # else it ended by itself
                process.wait(max(0.0, until - time.monotonic()))
            self._kill(process)

    def _kill(self, orchestrator: subprocess.Popen[bytes]) -> None:
        """End an orchestrator by force and, every other time, a worker, whoever's it is."""
        workers = self.site.workers()
        if workers and self.chance.random() < 0.5:
            self.kills += send_signal(self.chance.choice(workers), signal.SIGKILL)
        orchestrator.kill()
        assert orchestrator.wait() == -signal.SIGKILL, self.site.said()
        self.kills += 1

    def finish(self, count: int) -> None:
        """Submit what is missing, and let one orchestrator do the rest."""
        self.submit(count - len(self.names))
        process = self.site.orchestrator(slots=SLOTS)
        wait_for(lambda: not self.under_way(), 600, "the end of all workflows")
        process.terminate()
        assert process.wait(60) == 0, self.site.said()
        for drain in self.drains:
            assert drain.wait(60) in (0, 1), self.site.said()

    # What has come of it

    def judged(self) -> Figures:
        """Every workflow compared with what it must be."""
        found = Figures(points=len(self.names), struck=self.kills)
        lines = Counter(self.site.mark_lines())
        for workflow_id, name in self.names.items():
            checkpoints = {checkpoint.task_id: checkpoint for checkpoint in self.site.folder(workflow_id).tasks()}
            states = {task_id: str(checkpoint.state) for task_id, checkpoint in checkpoints.items()}
            if (self.site.state(workflow_id), states) != STATES[int(name) % len(STATES)]:
                found.wrong.append(f"{workflow_id} is {self.site.state(workflow_id)}: {states}")
                found.lost += 1
            if "note" in checkpoints:
                expected = {f"note.{name}"}
            elif "mark" in checkpoints:
                attempts = checkpoints["mark"].attempts
                expected = {f"mark.{name}.{one.number}" for one in attempts if one.outcome is Outcome.SUCCEEDED}
                cut_off = {f"mark.{name}.{one.number}" for one in attempts if one.outcome is Outcome.INTERRUPTED}
                again = lines.keys() & cut_off
                found.done += len(again)
                expected |= again
            else:
                continue
            found.lost += len(expected - lines.keys())
            found.doubled += sum(lines.pop(line, 1) - 1 for line in expected)
        found.doubled += lines.total()  # nobody's: of an attempt that was never begun
        if found.lost or found.doubled:
            found.wrong.append(f"{found.lost} lost, {found.doubled} doubled; marks that nobody promised: {lines}")
        found.wrong += [str(problem) for problem in check(self.site.spool.root)]
        return found


@pytest.mark.parametrize(
    ("count", "seconds", "pause"),
    [
        pytest.param(100, 10, (0.6, 1.2), id="100"),
        pytest.param(5000, 330, (2.0, 3.0), id="5000", marks=pytest.mark.long),
    ],
)
def test_nothing_is_lost_or_doubled(
    tmp_path: Path, cache_dir: Path, count: int, seconds: float, pause: tuple[float, float]
) -> None:
    site = Installation(tmp_path, cache_dir)
    soak = Soak(site)
    try:
        soak.disturb(count, seconds, pause)
        soak.finish(count)
        found = soak.judged()
        site.spool.close()
        wait_for(lambda: not left_of(site), what=f"the end of {left_of(site)}")
    finally:
        site.close()
    found.proof = f"soak of {count} workflows"
    ALL.append(found)
    assert soak.kills > seconds / pause[1] / 4, "hardly anybody was killed"
    assert not found.wrong, "\n".join([*found.wrong, site.said()])
