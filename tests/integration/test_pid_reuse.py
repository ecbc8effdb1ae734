"""The pid of something dead belongs to a stranger now: it is never signalled, and never taken for what is dead."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioning.clock import now
from provisioning.core.identifiers import Resident
from provisioning.core.workflow import FORMAT
from provisioning.orchestrator import daemon
from provisioning.processes import identity
from provisioning.storage.checkpoint import encode
from provisioning.storage.spool import OrchestratorRecord
from tests.crash.host import Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path, monkeypatch)
    yield made
    made.close()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["/bin/sleep", "60"], process_group=0)
    yield process
    process.kill()
    process.wait()


def dead(stranger: subprocess.Popen[bytes]) -> Resident:
    """Who had the stranger's pid before it."""
    found = identity(stranger.pid)
    assert found is not None
    return Resident(found.boot_id, found.pid, found.starttime - 1)


def test_a_stranger_is_not_the_orchestrator(host: Host, stranger: subprocess.Popen[bytes]) -> None:
    record = OrchestratorRecord(FORMAT, dead(stranger), "host", now(), "0", 1)
    host.person.save_orchestrator_record(record)
    assert host.person.running_orchestrator() is None
    assert not daemon.stop(host.person, number=signal.SIGTERM, timeout_seconds=1)
    assert stranger.poll() is None


def test_a_stranger_is_not_told_to_cancel(host: Host, stranger: subprocess.Popen[bytes]) -> None:
    workflow_id, scratch = host.started()
    log = host.log(workflow_id)
    (scratch.path / "process").write_bytes(encode(dead(stranger)))
    host.ask("cancel", workflow_id)
    host.begin().tick()
    assert host.workflow(workflow_id).cancelling
    assert stranger.poll() is None
    host.publish(workflow_id, scratch)
    os.close(log)
    scratch.close()
    host.work()
    assert host.state(workflow_id) == "cancelled"
    assert stranger.poll() is None


def test_a_stranger_s_group_is_not_what_a_dead_worker_left(host: Host, stranger: subprocess.Popen[bytes]) -> None:
    workflow_id, scratch = host.started("work.again")
    os.close(host.log(workflow_id))
    (scratch.path / "group").write_bytes(encode(dead(stranger)))
    os.close(scratch.descriptor)
    host.recover()
    assert host.outcomes(workflow_id) == ["interrupted", "succeeded"]
    assert stranger.poll() is None
