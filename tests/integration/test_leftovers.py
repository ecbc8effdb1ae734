"""What an attempt leaves behind: it is ended and named, however it hid, and what was meant to stay is let live."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioning.core.identifiers import Process
from provisioning.processes import identity, is_alive, send_signal
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

HIDE = """
import os, sys, time
steps, pid_file = sys.argv[1].split(), sys.argv[2]
def say_pid():
    with open(pid_file + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(pid_file + ".new", pid_file)
if "orphan" in steps and os.fork():
    os._exit(0)
if "session" in steps:
    os.setsid()
if "group" in steps:
    os.setpgid(0, 0)
if "close" in steps:
    os.closerange(0, 256)
say_pid()
if "succeeded" in steps:
    while not os.path.exists(pid_file + ".go"):
        time.sleep(0.01)
    if os.fork():
        os._exit(0)
    os.setsid()
    say_pid()
os.execvp("sleep", ["sleep", "300"])
"""
"""Becomes a process that hides from whoever started it, in the ways that are named, and says its pid."""


def hiding(site: Installation, how: str, name: str = "hidden") -> str:
    """A script that leaves such a process behind, and goes on when it is there."""
    program = site.root / "hide.py"
    program.write_text(HIDE)
    pid_file = site.root / name
    words = [sys.executable, "-S", str(program), how, str(pid_file)]
    return f"{shlex.join(words)} & while [ ! -s {pid_file} ]; do sleep 0.01; done"


def hidden(site: Installation, name: str = "hidden") -> int:
    """The pid of the process that was left behind."""
    return int((site.root / name).read_text())


def shell(task_id: str, script: str, **more: object) -> dict[str, object]:
    """A task that runs a script."""
    return {"id": task_id, "operation": "trial.shell", "params": {"script": script}, **more}


def parent_of(pid: int) -> int:
    """The parent of a process, which may be a zombie."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def running(marker: Path) -> list[Process]:
    """The processes that have the path in their command line."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if os.fsencode(marker) in words and (process := identity(pid)):
                found.append(process)
    return found


@pytest.fixture
def stays(site: Installation) -> Iterator[Callable[[str], Process]]:
    """Identifies processes left behind, and ends them with the test."""
    found: list[Process] = []

    def look(name: str = "hidden") -> Process:
        process = identity(hidden(site, name))
        assert process is not None, "it was meant to stay"
        found.append(process)
        return process

    yield look
    for process in found:
        send_signal(process, signal.SIGKILL)


@pytest.mark.parametrize(
    "how",
    ["orphan", "orphan group", "orphan close", "orphan group close", "group close", "orphan session", "session"],
)
def test_what_an_attempt_leaves_is_ended_and_named(site: Installation, how: str) -> None:
    """In another group, without a parent, with no descriptor of the attempt: the worker adopts it and knows it."""
    record = site.outcome(site.run([shell("t", hiding(site, how))]), "t")
    assert (record.outcome, record.leftovers) == ("succeeded", (hidden(site),))
    assert identity(hidden(site)) is None


@pytest.mark.parametrize("how", ["session close", "orphan session close"])
def test_what_runs_in_its_own_session_without_the_log_is_let_live(
    site: Installation, stays: Callable[[str], Process], how: str
) -> None:
    record = site.outcome(site.run([shell("t", hiding(site, how))]), "t")
    assert (record.outcome, record.leftovers) == ("succeeded", ())
    assert is_alive(stays("hidden"))


@pytest.mark.parametrize("how", ["orphan", "session", "orphan session close"])
def test_a_timeout_reaches_whatever_the_attempt_began(site: Installation, how: str) -> None:
    script = f"{hiding(site, how)}; sleep 300"
    record = site.outcome(site.run([shell("t", script, timeout="2s")]), "t")
    assert record.outcome == "timed_out"
    assert identity(hidden(site)) is None


def test_a_cancel_of_an_adopted_attempt_reaches_whatever_it_began(
    site: Installation, gate: Callable[[str], Gate]
) -> None:
    """Its orchestrator is dead; the next one tells the worker, which does the rest."""
    one = gate("one")
    ways = ["orphan group close", "session", "orphan session close"]
    left = "; ".join(hiding(site, how, f"hidden-{number}") for number, how in enumerate(ways))
    stopped = f"sh -c 'echo $$ > {site.root}/hidden-{len(ways)}; kill -STOP $$' &"
    workflow_id = site.submit([shell("t", f"trap '' TERM; {left}; {stopped} {one.script}")])
    process = site.orchestrator()
    one.reached()
    process.kill()
    process.wait()
    site.orchestrator()
    site.ask("cancel", workflow_id)
    assert site.wait_ended(workflow_id) == "cancelled"
    assert site.outcomes(workflow_id, "t") == ["cancelled"]
    assert [identity(hidden(site, f"hidden-{number}")) for number in range(len(ways) + 1)] == [None] * (len(ways) + 1)


def test_a_later_attempt_does_not_reach_it(site: Installation, stays: Callable[[str], Process]) -> None:
    workflow_id = site.submit([shell("a", hiding(site, "orphan session close"))])
    site.orchestrator(slots=1)
    assert site.wait_ended(workflow_id) == "succeeded"
    first = stays("hidden")
    late = site.submit([shell("b", f"{hiding(site, 'orphan session close', 'second')}; sleep 300", timeout="2s")])
    assert site.wait_ended(late) == "failed"
    assert site.outcome(late, "b").leftovers == (hidden(site, "second"),)
    assert is_alive(first)


def test_a_daemon_that_replaces_itself_during_a_later_attempt_is_no_part_of_that(
    site: Installation, stays: Callable[[str], Process]
) -> None:
    """Its successor is an orphan in a session that nobody has seen before."""
    workflow_id = site.submit([shell("a", hiding(site, "orphan session close succeeded"))])
    site.orchestrator(slots=1)
    assert site.wait_ended(workflow_id) == "succeeded"
    former, pid_file = stays("hidden"), site.root / "hidden"
    replace = f"touch {pid_file}.go; while [ $(cat {pid_file}) = {former.pid} ]; do sleep 0.01; done"
    mine = hiding(site, "orphan session close", "mine")
    late = site.submit([shell("b", f"{replace}; {mine}; sleep 300", timeout="3s")])
    assert site.wait_ended(late) == "failed"
    assert is_alive(stays("hidden"))
    assert site.outcome(late, "b").leftovers == (hidden(site, "mine"),)


def test_a_worker_whose_attempt_left_nothing_makes_the_next_one(site: Installation) -> None:
    site.orchestrator(slots=1)
    workers = []
    for script in ("true", "sleep 300 &", hiding(site, "orphan session"), "true"):
        workflow_id = site.submit([shell("t", script)])
        assert site.wait_ended(workflow_id) == "succeeded"
        workers.append(site.worker(workflow_id, "t"))
    assert len(set(workers)) == 1


def test_orphans_that_end_while_the_process_runs_are_buried(site: Installation, gate: Callable[[str], Gate]) -> None:
    one = gate("one")
    script = (
        f"for i in 1 2 3; do sh -c 'true & echo $! >> {site.root}/orphans'; done; sleep 0.1; echo said; {one.script}"
    )
    workflow_id = site.submit([shell("t", script)])
    site.orchestrator()
    one.reached()
    orphans = (site.root / "orphans").read_text().split()
    wait_for(lambda: not [pid for pid in orphans if os.path.exists(f"/proc/{pid}")], what="their funeral")
    one.open()
    assert site.wait_ended(workflow_id) == "succeeded"


def test_what_forks_while_it_is_being_ended_is_ended_too(site: Installation) -> None:
    """It ignores TERM and leaves a new child, without the log, every few milliseconds."""
    bomb = site.root / "bomb.sh"
    bomb.write_text('trap "" TERM\nwhile :; do sh -c "sleep 300; : $0" 5>&- & sleep 0.01; done\n')
    record = site.outcome(site.run([shell("t", f"setsid sh {bomb} & sleep 0.1")]), "t")
    assert record.outcome == "succeeded"
    assert len(record.leftovers) > 1
    assert running(bomb) == []


def test_a_process_that_flees_from_pid_to_pid_is_caught(site: Installation) -> None:
    """Each incarnation starts the next in a session of its own and ends; TERM is ignored."""
    flight = site.root / "flight.sh"
    flight.write_text('trap "" TERM\nsleep 0.03\nsetsid sh "$0" &\n')
    record = site.outcome(site.run([shell("t", f"setsid sh {flight} & sleep 0.1")]), "t")
    assert record.outcome == "succeeded"
    assert running(flight) == []


def test_who_was_told_once_to_end_is_left_its_grace_to_clean_up(site: Installation) -> None:
    """Nushell ends at once when the group is told; its child is not told again because of that."""
    site.settings(limits_grace_seconds=20)
    told = site.root / "told"
    script = f"trap 'echo term >> {told}; sleep 0.5; echo done >> {told}; exit' TERM; while :; do sleep 0.05; done"
    record = site.outcome(site.run([shell("t", script, timeout="500ms")]), "t")
    assert (record.outcome, record.leftovers) == ("timed_out", ())
    assert told.read_text().split() == ["term", "done"]
