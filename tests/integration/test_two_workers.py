"""Several processes on one spool: one orchestrator, drains and foreground commands beside it; each task once."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

Gates = Callable[[str], Gate]


def test_the_second_orchestrator_says_who_holds_the_lock(site: Installation) -> None:
    first = site.orchestrator()
    second = site.start("orchestrator", "run")
    assert second.wait(20) == 6
    assert f"is held by pid {first.pid}" in site.said()
    assert first.poll() is None


def test_the_lock_is_free_when_its_holder_was_killed(site: Installation) -> None:
    first = site.orchestrator()
    first.kill()
    first.wait()
    site.orchestrator()


def test_drains_beside_an_orchestrator_do_everything_once(site: Installation) -> None:
    ids = [
        site.submit([site.mark(f"w{workflow}-t{task}") for task in range(3)] + [site.mark(f"w{workflow}-end")])
        for workflow in range(6)
    ]
    site.orchestrator(slots=2)
    drains = [site.start("orchestrator", "run", "--until-empty", "--slots", "2") for _ in range(2)]
    assert [drain.wait(60) for drain in drains] == [0, 0], site.said()
    for workflow_id in ids:
        assert site.wait_ended(workflow_id) == "succeeded"
    lines = site.mark_lines()
    assert sorted(lines) == sorted({*lines})
    assert len(lines) == 24


def test_orchestrator_drain_and_foreground_command_at_once_do_everything_once(site: Installation) -> None:
    ids = [site.submit([site.mark(f"w{workflow}-{task}") for task in "ab"]) for workflow in range(10)]
    drain = site.start("orchestrator", "run", "--until-empty", "--slots", "2")
    commands = [site.start("selftest", "mark", str(site.marks), f"line {number}") for number in range(3)]
    site.orchestrator(slots=2)
    assert [process.wait(60) for process in (drain, *commands)] == [0] * 4, site.said()
    assert [site.wait_ended(workflow_id) for workflow_id in ids] == ["succeeded"] * 10
    wanted = [f"w{workflow}-{task}" for workflow in range(10) for task in "ab"]
    assert sorted(site.mark_lines()) == sorted([*wanted, "line 0", "line 1", "line 2"])


def test_a_drain_leaves_what_the_orchestrator_works(site: Installation, gate: Gates) -> None:
    one = gate("one")
    workflow_id = site.submit([{"id": "a", "operation": "trial.shell", "params": {"script": one.script}}])
    site.orchestrator()
    one.reached()
    assert site.drain() == 0, "it did not wait for the other's task"
    assert site.state(workflow_id) == "running"
    one.open()
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "a") == ["succeeded"]


def test_a_drain_says_by_its_exit_code_that_a_workflow_failed(site: Installation) -> None:
    site.submit([{"id": "a", "operation": "selftest.fail"}])
    assert site.drain() == 1
    assert site.drain() == 0


def test_a_drain_says_a_line_for_each_workflow_that_did_not_end_well(site: Installation) -> None:
    """It is what cron mails: those that succeeded are no line, nor is what was said before."""
    first = [{"id": "fine", "operation": "selftest.noop"}]
    fails = {"id": "then", "operation": "selftest.fail", "params": {"message": "no room"}, "after": ["fine"]}
    failed = site.submit([*first, fails, site.mark("last", depends_on=["then"])], name="site-1")
    site.submit(first)
    kill_worker = "kill -9 $(cut -d ' ' -f 4 /proc/$PPID/stat)"
    asking = site.submit([{"id": "a", "operation": "trial.shell", "params": {"script": kill_worker}}], name="asks")
    damaged = site.submit(first, name="spoilt")
    (site.folder(damaged).path / "manifest.json").write_bytes(b"{")
    damaged_too = site.submit(first, name="worse")
    (site.folder(damaged_too).path / "submission.json").write_bytes(b"{")
    assert site.drain() == 1
    lines = (site.root / "said.0").read_text().splitlines()
    said = {line.split()[1].strip(":"): line for line in lines}
    assert len(lines) == len(said) == 4, lines
    assert said[failed].startswith(f"workflow {failed} (site-1): failed: task then: ")
    assert "no room" in said[failed]
    assert said[asking].startswith(f"workflow {asking} (asks): paused: waiting for a person: task a")
    assert "manifest.json is damaged" in said[damaged]
    assert "submission.json is damaged" in said[damaged_too]


def test_a_drain_that_is_told_to_stop_stops(site: Installation, gate: Gates) -> None:
    one = gate("one")
    workflow_id = site.submit(
        [{"id": "a", "operation": "trial.shell", "params": {"script": one.script}}, site.mark("b", depends_on=["a"])]
    )
    drain = site.start("orchestrator", "run", "--until-empty")
    one.reached()
    drain.terminate()
    one.open()
    assert drain.wait(20) == 0
    assert site.states(workflow_id) == {"a": "succeeded"}


def test_a_foreground_command_beside_an_orchestrator(site: Installation) -> None:
    """Whoever gets the workflow's lock works it; the command follows it to its end either way."""
    site.orchestrator()
    commands = [site.start("selftest", "mark", str(site.marks), f"line {number}") for number in range(3)]
    assert [command.wait(30) for command in commands] == [0, 0, 0], site.said()
    assert sorted(site.mark_lines()) == ["line 0", "line 1", "line 2"]


def test_a_foreground_command_without_an_orchestrator(site: Installation) -> None:
    command = site.start("selftest", "echo", "hello")
    assert command.wait(30) == 0
    assert "hello" in site.said()
    (workflow_id,) = site.spool.claimed_ids()
    assert site.state(workflow_id) == "succeeded"


def test_a_killed_foreground_command_is_adopted(site: Installation, gate: Gates) -> None:
    one = gate("one")
    command = site.start("trial", "shell", f"{one.script}; echo done >> {site.marks}")
    one.reached()
    command.kill()
    command.wait()
    (workflow_id,) = site.spool.claimed_ids()
    site.orchestrator()
    one.open()
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "shell") == ["succeeded"]
    assert site.mark_lines() == ["done"]


def test_interrupting_a_foreground_command_cancels_its_workflow(site: Installation, gate: Gates) -> None:
    one = gate("one")
    command = site.start("trial", "shell", one.script)
    one.reached()
    command.send_signal(signal.SIGINT)
    assert command.wait(20) == 130
    (workflow_id,) = site.spool.claimed_ids()
    assert site.state(workflow_id) == "cancelled"


def test_an_orchestrator_takes_what_a_foreground_command_let_go(site: Installation, gate: Gates) -> None:
    """A drain holds one workflow when it is killed; the orchestrator beside it goes on with it by itself."""
    one = gate("one")
    workflow_id = site.submit(
        [{"id": "a", "operation": "trial.shell", "params": {"script": one.script}}, site.mark("b", depends_on=["a"])]
    )
    drain = site.start("orchestrator", "run", "--until-empty")
    one.reached()
    site.orchestrator()
    drain.kill()
    drain.wait()
    one.open()
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.mark_lines() == ["b"]
    wait_for(lambda: site.outcomes(workflow_id, "a") == ["succeeded"])
