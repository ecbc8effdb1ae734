"""What is said of the orchestrator is true: while its record is lost, while it drains, and while the spool is away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

Gates = Callable[[str], Gate]


def told(site: Installation, verb: str, spool: Path | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of `orchestrator VERB --json`."""
    before = len(list(site.root.glob("said.*")))
    environment = {"PROVISIONING_SPOOL": str(spool)} if spool else {}
    code = site.start("orchestrator", verb, "--json", environment=environment).wait(20)
    text = (site.root / f"said.{before}").read_text()
    return code, json.loads(text[text.index("{") :][: text.rindex("}") + 1])


def codes(site: Installation, spool: Path | None = None) -> list[str]:
    code, page = told(site, "health", spool)
    assert (code == 0) == page["healthy"]
    return [problem["code"] for problem in page["problems"]]


def stopped(process: subprocess.Popen[bytes]) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("data", [None, b"", b'{"format":1,"process":'])
def test_a_lost_record_is_written_again(site: Installation, data: bytes | None) -> None:
    process = site.orchestrator()
    record = site.spool.root / "orchestrator.json"
    before = record.read_bytes()
    record.unlink()
    if data is not None:
        record.write_bytes(data)
    wait_for(lambda: record.exists() and record.read_bytes() == before)
    wait_for(lambda: "orchestrator.json was lost or damaged" in site.said(), what=site.said)
    assert process.poll() is None


def test_an_orchestrator_whose_record_is_lost_is_known_by_its_lock(site: Installation) -> None:
    """It is stopped here, so that it cannot say it again."""
    process = site.orchestrator()
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: stopped(process))
    (site.spool.root / "orchestrator.json").unlink()
    code, page = told(site, "status")
    assert (code, page["running"], page["state"], page["pid"]) == (0, True, "running", process.pid)
    assert page["slots"] is None
    assert site.start("orchestrator", "start").wait(20) == 6
    assert f"has an orchestrator already: pid {process.pid}, running" in site.said()
    assert site.start("orchestrator", "run").wait(20) == 6
    assert f"is held by pid {process.pid}\n" in site.said()
    stop = site.start("orchestrator", "stop")
    process.send_signal(signal.SIGCONT)
    assert (stop.wait(20), process.wait(20)) == (0, 0)
    code, page = told(site, "status")
    assert (page["running"], page["state"]) == (False, "not running")


def test_one_that_drains_says_so(site: Installation, gate: Gates) -> None:
    one = gate("one")
    workflow_id = site.submit([{"id": "a", "operation": "trial.shell", "params": {"script": one.script}}])
    process = site.orchestrator()
    assert codes(site) == []
    one.reached()
    process.send_signal(signal.SIGUSR1)
    wait_for(lambda: (record := site.spool.orchestrator_record()) and record.draining)
    assert told(site, "status")[1]["state"] == "draining"
    assert codes(site) == ["draining"]
    assert site.start("selftest", "echo", "x", "--orchestrated").wait(20) == 0
    assert "the orchestrator is draining and starts nothing" in site.said()
    one.open()
    assert process.wait(20) == 0
    assert site.outcomes(workflow_id, "a") == ["succeeded"]
    site.orchestrator()
    assert codes(site) == []


def test_one_whose_spool_was_renamed_is_away(site: Installation) -> None:
    process = site.orchestrator()
    moved = site.root / "moved"
    site.spool.root.rename(moved)
    try:
        page = told(site, "status", moved)[1]
        assert (page["state"], page["pid"], page["works"]) == ("away", process.pid, str(site.spool.root))
        assert codes(site, moved) == ["away"]
    finally:
        os.rename(moved, site.spool.root)
    assert told(site, "status")[1]["state"] == "running"
