"""Watching workflows and their logs as people do: real processes, a real Nushell, a real spool."""

from __future__ import annotations

import json
import os
import pty
import signal
import sys

import pytest

from tests.installation import Installation
from tests.integration.test_cli import provisioning
from tests.waiting import wait_for

pytestmark = pytest.mark.nu


def commands(task_id: str, script: str, **more: object) -> dict[str, object]:
    return {"id": task_id, "operation": "commands.run", "params": {"argv": ["sh", "-c", script]}, **more}


def twice(site: Installation) -> dict[str, object]:
    """A task whose first attempt fails, and says so."""
    seen = site.root / "seen"
    script = f"test -e {seen} && {{ echo second; exit 0; }}; touch {seen}; echo first; kill -9 $PPID"
    return commands("b", script, retry={"max_attempts": 2, "initial_delay": "0s"})


def test_logs_that_are_followed_go_across_tasks_and_attempts(site: Installation) -> None:
    site.orchestrator()
    workflow_id = site.submit([commands("a", "echo one; sleep 1; echo two"), twice(site)])
    followed = provisioning(site, "workflow", "logs", workflow_id, "-f").stdout.decode().splitlines()
    assert sorted(followed) == ["a | one", "a | two", "b | first", "b#2 | second"]
    latest = provisioning(site, "workflow", "logs", workflow_id, "b").stdout
    assert latest == b"second\n"
    assert provisioning(site, "workflow", "logs", workflow_id, "b", "--all").stdout == b"first\nsecond\n"
    provisioning(site, "workflow", "logs", workflow_id, "b", "--all", "--attempt", "1", code=2)
    found = [
        json.loads(each)
        for each in provisioning(site, "wf", "logs", workflow_id, "--all", "--json").stdout.splitlines()
    ]
    assert {(each["task_id"], each["attempt"], each["line"]) for each in found} >= {
        ("b", 1, "first"),
        ("b", 2, "second"),
    }


def test_all_workflows_are_watched_until_none_is_left(site: Installation) -> None:
    provisioning(site, "workflow", "watch", code=4)
    good = site.submit([commands("fine", "sleep 0.5")])
    bad = site.submit([commands("broken", "exit 3")])
    site.orchestrator()
    done = provisioning(site, "workflow", "watch", code=1)
    lines = done.stdout.decode().splitlines()
    assert f"workflow {good} succeeded" in lines
    (line,) = [each for each in lines if each.startswith(f"{bad} broken failed")]
    assert "provisioning::commands::failed" in line
    assert "hint: " in line
    assert bad in done.stderr.decode()
    assert good not in done.stderr.decode()
    again = site.submit([commands("fine", "sleep 4")])
    changes = [json.loads(line) for line in provisioning(site, "workflow", "watch", "--json").stdout.splitlines()]
    assert {change["workflow_id"] for change in changes} == {again}
    assert [change["state"] for change in changes if change.get("task_id") == "fine"][-1] == "succeeded"


def test_a_terminal_is_left_as_it_was_when_the_watcher_is_interrupted(site: Installation) -> None:
    site.orchestrator()
    workflow_id = site.submit([commands("a", "echo working on it; exec sleep 60")])
    pid, terminal = pty.fork()
    if not pid:
        environment = {**site.environment, "TERM": "xterm", "COLUMNS": "80", "LINES": "20"}
        os.execve(sys.executable, [sys.executable, "-m", "provisioning", "workflow", "watch", workflow_id], environment)
    seen = bytearray()
    os.set_blocking(terminal, False)

    def shown(what: bytes) -> bool:
        try:
            seen.extend(os.read(terminal, 1 << 16))
        except (BlockingIOError, OSError):
            pass
        return what in seen

    wait_for(lambda: shown(b"working on it"), what="the last line of its log on the terminal")
    os.kill(pid, signal.SIGINT)
    wait_for(lambda: shown(b"goes on"), what="the end of the watcher")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l") >= 0  # the cursor is shown again
    assert site.state(workflow_id) == "running"
    provisioning(site, "workflow", "cancel", workflow_id)
