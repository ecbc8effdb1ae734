"""kill -9 of an orchestrator at each of its renames, then another one: the end is that of an undisturbed run.

Every change of state appears by a rename, so that these are the instants between which the spool differs. Only the
orchestrator dies; what it started goes on.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.installation import Installation

RENAMES = "rename,renameat,renameat2"
LAST = 20
"""The undisturbed run has so many."""


def may_trace() -> bool:
    """Whether strace is there and the kernel lets it work."""
    strace = shutil.which("strace")
    if strace is None:
        return False
    return subprocess.run([strace, "-qq", "true"], capture_output=True, check=False).returncode == 0


pytestmark = [pytest.mark.nu, pytest.mark.skipif(not may_trace(), reason="strace is missing or may not trace")]


class End(NamedTuple):
    """What must be the same, however often somebody was killed."""

    state: str
    reason: str
    states: dict[str, str]
    outcomes: dict[str, list[str]]
    marks: list[str]


def tasks(site: Installation) -> list[dict[str, Any]]:
    """Success, failure, a retry that helps, and marks that may be made only once."""
    flaky = f"test -e {site.root}/tried || {{ touch {site.root}/tried; exit 1; }}"
    return [
        site.mark("first"),
        site.mark("second", depends_on=["first"]),
        {"id": "noop", "operation": "selftest.noop", "depends_on": ["first"]},
        {
            "id": "flaky",
            "operation": "trial.again",
            "params": {"script": flaky},
            "retry": {"max_attempts": 2, "initial_delay": "10ms"},
        },
        {"id": "bad", "operation": "selftest.fail"},
        site.mark("never", depends_on=["bad"]),
        site.mark("last", after=["bad", "second", "flaky"]),
    ]


def end_of(site: Installation, workflow_id: str) -> End:
    """How the workflow has ended; attempts that were lost to the kill left out."""
    checkpoint = site.workflow(workflow_id)
    lost = ("interrupted", "not_started")
    made = [task.task_id for task in site.folder(workflow_id).tasks()]
    outcomes = {task: [one for one in site.outcomes(workflow_id, task) if one not in lost] for task in made}
    return End(str(checkpoint.state), checkpoint.reason, site.states(workflow_id), outcomes, sorted(site.mark_lines()))


def work_traced(site: Installation, *inject: str) -> int:
    """Work the spool below strace; how that ended."""
    before = ["strace", "-qq", "-o", str(site.root / "trace"), "-e", f"trace={RENAMES}", *inject]
    arguments = ["orchestrator", "run", "--until-empty", "--max-wait", "2", "--slots", "2"]
    own_renames_only = {"PYTHONDONTWRITEBYTECODE": "1"}  # the interpreter's caches appear by rename too
    return site.start(*arguments, before=before, environment=own_renames_only).wait(60)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of the catalogue for all runs."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def site(tmp_path: Path, cache_dir: Path) -> Iterator[Installation]:
    """A spool and a configuration; every process started on it ends with the test."""
    made = Installation(tmp_path, cache_dir)
    yield made
    made.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Iterator[End]:
    """How the workflow ends when nobody is killed."""
    site = Installation(tmp_path_factory.mktemp("undisturbed"), cache_dir)
    workflow_id = site.submit(tasks(site), on_failure="continue")
    assert work_traced(site) == 1, site.said()
    traced = (site.root / "trace").read_text().splitlines()
    assert sum(line.startswith("rename") for line in traced) == LAST, "sweep over all of them: set LAST"
    yield end_of(site, workflow_id)
    site.close()


def test_the_undisturbed_run_is_what_the_tasks_say(undisturbed: End) -> None:
    assert undisturbed.state == "failed"
    assert undisturbed.marks == ["first", "last", "second"]
    assert undisturbed.outcomes["flaky"] == ["failed", "succeeded"]


@pytest.mark.parametrize("number", range(1, LAST + 1))
def test_killed_at_a_rename(site: Installation, undisturbed: End, number: int) -> None:
    workflow_id = site.submit(tasks(site), on_failure="continue")
    code = work_traced(site, "-e", f"inject={RENAMES}:signal=KILL:when={number}")
    assert code == -signal.SIGKILL, f"nobody was killed\n{site.said()}"
    site.drain(slots=2, max_wait=15)
    assert end_of(site, workflow_id) == undisturbed, site.said()
