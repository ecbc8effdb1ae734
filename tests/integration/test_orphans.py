"""A worker that is killed while its attempt lives, also where pid 1 buries nobody."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioning.core.identifiers import Process
from provisioning.execution.ending import holders
from provisioning.processes import identity, is_alive, send_signal
from provisioning.storage.checkpoint import load
from provisioning.storage.spool import OrchestratorRecord
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = [pytest.mark.nu, pytest.mark.root]

Gates = Callable[[str], Gate]

NEGLIGENT = "import subprocess, sys\nfor _ in range(2): subprocess.run(sys.argv[1:])"
"""A pid 1 that waits for its own child alone, and starts it once more when it has ended."""


def start_in_container(site: Installation) -> None:
    """Work the spool in a pid namespace of its own."""
    namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    site.start("orchestrator", "run", before=[*namespace, sys.executable, "-c", NEGLIGENT])


def seen_from_here(inside: Process) -> Process:
    """The process of a pid namespace, as one of this."""
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            found = identity(pid)
            names = status.partition("NSpid:")[2].partition("\n")[0].split()
            if found and found.starttime == inside.starttime and names[-1:] == [str(inside.pid)]:
                return found
    raise AssertionError(f"there is no {inside}")


def is_zombie(process: Process) -> bool:
    """Whether it has ended, and nobody has buried it."""
    return os.path.exists(f"/proc/{process.pid}") and not is_alive(process)


def attempt_of(site: Installation, workflow_id: str) -> tuple[Process, list[Process]]:
    """The worker of task a, and what else there is of its first attempt."""
    worker = seen_from_here(site.worker(workflow_id, "a"))
    rest = [process for process in holders(site.folder(workflow_id).log_path("a", 1)) if process != worker]
    assert len(rest) >= 2, "nu, and what it runs"
    return worker, rest


def test_the_orphans_of_a_killed_worker_are_ended_and_buried(site: Installation, gate: Gates) -> None:
    one = gate("one")
    script = f"trap '' TERM; {one.script}; while :; do sleep 0.05; done"
    workflow_id = site.submit([{"id": "a", "operation": "trial.again", "params": {"script": script}}])
    start_in_container(site)
    one.reached()
    worker, rest = attempt_of(site, workflow_id)
    send_signal(worker, signal.SIGKILL)
    one.reached(2)
    assert site.outcomes(workflow_id, "a") == ["interrupted", "None"]
    assert not any(map(is_alive, rest))
    wait_for(lambda: not any(map(is_zombie, [worker, *rest])), what="their funeral")
    assert "unexpected pid" not in site.said()


def test_a_group_of_zombies_is_not_waited_for(site: Installation, gate: Gates) -> None:
    """Orchestrator and worker are killed: what the next orchestrator ends stays a zombie of pid 1 for ever."""
    one = gate("one")
    workflow_id = site.submit([{"id": "a", "operation": "trial.again", "params": {"script": one.script}}])
    start_in_container(site)
    one.reached()
    worker, rest = attempt_of(site, workflow_id)
    first = seen_from_here(load(site.spool.root / "orchestrator.json", OrchestratorRecord).process)
    send_signal(first, signal.SIGSTOP)  # so that it does not see its worker go
    send_signal(worker, signal.SIGKILL)
    send_signal(first, signal.SIGKILL)
    one.open(2)
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "a") == ["interrupted", "succeeded"]
    assert any(map(is_zombie, rest)), "this pid 1 buries nobody"
