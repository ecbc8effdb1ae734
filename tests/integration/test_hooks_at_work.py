"""`[notify]` beside real work: the program is told, and no task waits for one that hangs."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import PROGRAM
from tests.installation import Installation
from tests.integration.test_cli import provisioning
from tests.integration.test_notify import ear, environment, heard
from tests.integration.test_watch import commands
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

__all__ = ["ear"]


def program(site: Installation, script: str = "") -> Path:
    path = site.root / "tell"
    path.write_text(f'#!/bin/sh\ncat >"$0.$$.part" && mv "$0.$$.part" "$0.$$.json"\n{script}\n')
    path.chmod(0o700)
    site.environment["PROVISIONING_NOTIFY_COMMAND"] = str(path)
    return path


def told(site: Installation) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in site.root.glob("tell.*.json")]
    return sorted(found, key=lambda each: each["notice"])


def test_all_that_happens_to_workflows_is_told(site: Installation) -> None:
    program(site)
    site.orchestrator()
    bad = provisioning(site, "command", "run", "--orchestrated", "--", "sh", "-c", "exit 3").stdout.decode().strip()
    wait_for(lambda: len(told(site)) == 2, what="what became of it")
    accepted, ended = told(site)
    assert [(each["event"], each["workflow_id"]) for each in (accepted, ended)] == [("accepted", bad), ("failed", bad)]
    assert ended["failed"][0]["error"]["code"] == "provisioning::commands::failed"
    worker = site.submit(
        [{"id": "m", "operation": "selftest.mark", "params": {"file": str(site.root / "x"), "line": "x"}}]
    )
    wait_for(lambda: len(told(site)) >= 3, what="the end of that")
    assert told(site)[-1]["event"] == "succeeded"
    assert told(site)[-1]["workflow_id"] == worker


def test_a_run_from_cron_tells_before_it_ends(site: Installation) -> None:
    program(site)
    site.submit([commands("first", "true")])
    assert site.drain() == 0  # where nobody has told anything yet, what comes from now on is told
    one = site.submit([commands("a", "exit 3")])
    assert site.drain() == 1
    assert [(each["event"], each["workflow_id"]) for each in told(site)][-1] == ("failed", one)


def test_no_task_waits_for_a_program_that_hangs(site: Installation) -> None:
    program(site, "sleep 60")
    site.environment["PROVISIONING_NOTIFY_AT_ONCE"] = "1"
    site.orchestrator()
    ids = [site.submit([commands("a", "true")], name=f"w{i}") for i in range(6)]
    assert [site.wait_ended(each, seconds=30) for each in ids] == ["succeeded"] * 6
    assert len(told(site)) <= 1


def test_who_waits_for_a_person_is_told_so(site: Installation) -> None:
    program(site)
    first = site.orchestrator()
    workflow_id = site.submit([commands("a", "echo begun; exec sleep 60", on_interrupt="fail")])
    log = site.spool.workflows / workflow_id / "logs" / "a.1.log"
    wait_for(lambda: log.exists() and log.read_bytes() == b"begun\n", what="its start")
    provisioning(site, "orchestrator", "stop", "--now")
    first.wait()
    site.orchestrator()
    wait_for(lambda: any(each["event"] == "waiting-for-person" for each in told(site)), what="the call for a person")
    (notice,) = [each for each in told(site) if each["event"] == "waiting-for-person"]
    assert (notice["workflow_id"], notice["task_id"], notice["state"]) == (workflow_id, "a", "paused")
    provisioning(site, "workflow", "cancel", workflow_id)


def test_the_supervisor_hears_how_many_slots_are_busy(tmp_path: Path, ear: socket.socket) -> None:
    settings = environment(tmp_path)
    with subprocess.Popen([PROGRAM, "orchestrator", "run"], env=settings) as process:
        assert heard(ear)[0].endswith("with 10 slots")
        command = [str(PROGRAM), "selftest", "sleep", "2", "--orchestrated"]
        subprocess.run(command, env=settings, check=True, capture_output=True, timeout=60)
        assert heard(ear)[0].endswith("with 10 slots, 1 of them busy")
        assert heard(ear)[0].endswith("with 10 slots")
        process.terminate()
    assert process.returncode == 0
