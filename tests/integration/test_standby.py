"""A process that was started before its task was known: what the task sees, and what becomes of one that is unused."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provisioning.processes import identity, is_alive
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

Gates = Callable[[str], Gate]


def shell(task_id: str, script: str, **more: Any) -> dict[str, Any]:
    return {"id": task_id, "operation": "trial.shell", "params": {"script": script}, **more}


def children(pid: int) -> list[int]:
    """The processes that this one has started and not buried."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def waiting(site: Installation) -> list[int]:
    """The processes of workers that wait for a task: their log has no name of an attempt."""
    found = []
    for worker in site.workers():
        for pid in children(worker.pid):
            log = os.readlink(f"/proc/{pid}/fd/5") if os.path.lexists(f"/proc/{pid}/fd/5") else ""
            if f"/tmp/{worker_folder(site, worker.pid)}/" in log:
                found.append(pid)
    return found


def worker_folder(site: Installation, pid: int) -> str:
    """The name of the worker's scratch folder."""
    for path in site.spool.tmp.glob("*/process"):
        if f'"pid":{pid},' in path.read_text():
            return path.parent.name
    return ""


def test_a_task_sees_the_same_in_a_process_that_waited(site: Installation) -> None:
    """All that tells the two apart is what belongs to the task."""
    chain: list[dict[str, Any]] = [{"id": "a", "operation": "trial.surroundings"}]
    chain += [{"id": "b", "operation": "trial.surroundings", "depends_on": ["a"]}]
    workflow_id = site.run(chain)
    cold, warm = (site.outcome(workflow_id, task).result for task in "ab")
    assert site.outcome(workflow_id, "b").started_at > site.outcome(workflow_id, "a").ended_at
    begun = [int(each["stat"].rpartition(")")[2].split()[19]) for each in (cold, warm)]
    apart = site.outcome(workflow_id, "b").started_at - site.outcome(workflow_id, "a").started_at
    assert (begun[1] - begun[0]) / os.sysconf("SC_CLK_TCK") < apart.total_seconds(), "b's process began before b"
    for each, task in ((cold, "a"), (warm, "b")):
        for name in ("child_environ", "own", "child"):
            each[name] = [plain(line, task) for line in each[name]]
        each["own"] = [line for line in each["own"] if int(line.split()[0]) <= 5]  # the others are of its own making
    for name in ("environ", "child_environ", "own", "child", "cwd", "limits"):
        assert cold[name] == warm[name], name
    kept = "Umask: SigBlk: SigIgn: SigCgt: Uid: Gid: Groups: NoNewPrivs: Seccomp: CapEff: CapBnd:".split()
    for begin in kept:
        assert line_of(cold["status"], begin) == line_of(warm["status"], begin)


def plain(line: str, task: str) -> str:
    """A line without what is the task's own: its id, and the numbers of pipes and pids."""
    line = re.sub(rf"(/|=){task}(?=\.1\.log$|$)", r"\1T", line)
    return re.sub(r"(pipe:\[|/proc/)[0-9]+", r"\1N", line)


def line_of(text: str, begin: str) -> str:
    return next((line for line in text.splitlines() if line.startswith(begin)), "")


def test_one_waits_while_another_task_of_its_operation_will_come(site: Installation, gate: Gates) -> None:
    first, second = gate("first"), gate("second")
    workflow_id = site.submit([shell("a", first.script), shell("b", second.script, depends_on=["a"])])
    site.orchestrator(slots=1)
    first.reached()
    (pid,) = wait_for(lambda: waiting(site))
    first.open()
    second.reached()
    assert os.readlink(f"/proc/{pid}/fd/5").endswith("/logs/b.1.log"), "it serves b, and its log has b's name"
    assert waiting(site) == [], "nobody comes after b"
    second.open()
    assert site.wait_ended(workflow_id) == "succeeded"


def test_in_a_chain_one_waits_for_each_of_the_next_tasks(site: Installation, gate: Gates) -> None:
    site.settings(orchestrator_standby_processes=2)
    first = gate("first")
    chain = [shell(each, "true", depends_on=[before]) for before, each in zip("abc", "bcd", strict=True)]
    workflow_id = site.submit([shell("a", first.script), *chain])
    site.orchestrator(slots=2)
    first.reached()
    ahead = wait_for(lambda: waiting(site) if len(waiting(site)) == 2 else [])
    begun = {pid: identity(pid) for pid in ahead}
    first.open()
    assert site.wait_ended(workflow_id) == "succeeded"
    assert {site.outcome(workflow_id, each).exit_code for each in "abcd"} == {0}
    assert not [pid for pid, process in begun.items() if process and is_alive(process)]
    wait_for(lambda: not waiting(site), what="the end of those that nobody needs")


def test_no_more_wait_than_there_are_slots(site: Installation, gate: Gates) -> None:
    site.settings(orchestrator_standby_processes=4)
    first = gate("first")
    workflow_id = site.submit([shell("a", first.script), *(shell(each, "true") for each in "bcd")])
    site.orchestrator(slots=1)
    first.reached()
    wait_for(lambda: len(waiting(site)) == 1)
    assert len(site.workers()) == 2
    first.open()
    assert site.wait_ended(workflow_id) == "succeeded"


def test_none_waits_for_a_task_that_must_hold_a_target(site: Installation, gate: Gates) -> None:
    """What holds its targets is inherited at the start."""
    first = gate("first")
    after: dict[str, Any] = {"operation": "trial.alone", "params": {"name": "n", "script": "true"}, "depends_on": ["a"]}
    workflow_id = site.submit([shell("a", first.script), {"id": "b", **after}])
    site.orchestrator(slots=1)
    first.reached()
    assert waiting(site) == []
    first.open()
    assert site.wait_ended(workflow_id) == "succeeded"


def test_none_waits_where_the_config_says_so(site: Installation, gate: Gates) -> None:
    site.settings(orchestrator_standby_processes=0)
    first, second = gate("first"), gate("second")
    workflow_id = site.submit([shell("a", first.script), shell("b", second.script, depends_on=["a"])])
    site.orchestrator(slots=1)
    first.reached()
    assert waiting(site) == []
    first.open()
    second.open()
    assert site.wait_ended(workflow_id) == "succeeded"


def test_a_task_whose_process_was_killed_while_it_waited_has_another(site: Installation, gate: Gates) -> None:
    first = gate("first")
    workflow_id = site.submit([shell("a", first.script), shell("b", "true", depends_on=["a"])])
    site.orchestrator(slots=1)
    first.reached()
    (pid,) = wait_for(lambda: waiting(site))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: identity(pid) is None)
    first.open()
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "b") == ["succeeded"]


def test_one_that_waits_ends_with_its_worker_and_does_nothing(site: Installation, gate: Gates) -> None:
    first = gate("first")
    workflow_id = site.submit([shell("a", first.script), site.mark("m", depends_on=["a"])])
    site.orchestrator(slots=1)
    first.reached()
    (pid,) = wait_for(lambda: waiting(site))
    process = identity(pid)
    assert process is not None
    os.kill(site.worker(workflow_id, "a").pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(process), what="the end of what nobody will feed")
    assert site.mark_lines() == []


def test_another_operation_starts_its_own(site: Installation, gate: Gates) -> None:
    """The guess was wrong: what waited is ended, and the task has a process of its own operation."""
    first = gate("first")
    later = {"id": "c", "operation": "selftest.noop"}
    workflow_id = site.submit([shell("a", first.script), shell("b", "true", depends_on=["a"])], priority=10)
    site.orchestrator(slots=1)
    first.reached()
    (pid,) = wait_for(lambda: waiting(site))
    urgent = site.submit([later], priority=90)
    first.open()
    assert site.wait_ended(urgent) == "succeeded"
    assert site.wait_ended(workflow_id) == "succeeded"
    assert identity(pid) is None
