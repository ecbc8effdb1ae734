"""Workers: one that dies takes only its own attempt with it, idle ones end, and nobody waits for one."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from provisioning.clock import boottime
from provisioning.execution.ending import holders
from provisioning.execution.executor import Ahead, AttemptRequest, Key, Seen
from provisioning.execution.pool import Pool
from provisioning.processes import identity, is_alive, look_at, send_signal
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

Gates = Callable[[str], Gate]


def at_gate(task_id: str, gate: Gate, operation: str = "trial.again", **more: Any) -> dict[str, Any]:
    """A task that waits at a gate."""
    return {"id": task_id, "operation": operation, "params": {"script": gate.script}, **more}


def test_a_worker_killed_in_a_task_takes_only_that_attempt(site: Installation, gate: Gates) -> None:
    """Nushell lives on then: its group is ended before the attempt is called interrupted and made again."""
    one, other = gate("one"), gate("other")
    workflow_id = site.submit([at_gate("one", one), at_gate("other", other)])
    site.orchestrator()
    one.reached()
    other.reached()
    left = holders(site.folder(workflow_id).log_path("one", 1))
    worker = site.worker(workflow_id, "one")
    assert len(left) >= 3, "the worker, nu and cat"
    assert send_signal(worker, signal.SIGKILL)
    wait_for(lambda: site.outcomes(workflow_id, "one") == ["interrupted", "None"], what=site.said)
    assert not any(map(is_alive, left))
    one.open(2)
    other.open()
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "one") == ["interrupted", "succeeded"]
    assert site.outcomes(workflow_id, "other") == ["succeeded"]


def test_an_interrupted_task_that_is_not_idempotent_waits_for_a_person(site: Installation, gate: Gates) -> None:
    one, other = gate("one"), gate("other")
    workflow_id = site.submit(
        [at_gate("one", one, "trial.shell"), at_gate("other", other), site.mark("last", depends_on=["one"])]
    )
    site.orchestrator()
    one.reached()
    other.reached()
    send_signal(site.worker(workflow_id, "one"), signal.SIGKILL)
    wait_for(lambda: site.outcomes(workflow_id, "one") == ["interrupted"])
    site.wait_state(workflow_id, "paused")
    assert site.task(workflow_id, "one").held
    assert site.workflow(workflow_id).reason == "waiting for a person: task one"
    other.open()  # what ran goes on
    wait_for(lambda: site.outcomes(workflow_id, "other") == ["succeeded"])
    site.ask("retry", workflow_id, "one")
    one.open(2)
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.mark_lines() == ["last"]


def test_three_interruptions_are_too_many(site: Installation, gate: Gates) -> None:
    one = gate("one")
    workflow_id = site.submit([at_gate("one", one)])
    site.orchestrator()
    for number in (1, 2, 3):
        one.reached(number)
        send_signal(site.worker(workflow_id, "one"), signal.SIGKILL)
        wait_for(lambda number=number: site.outcomes(workflow_id, "one")[number - 1] == "interrupted")  # type: ignore[misc]
    assert site.wait_ended(workflow_id) == "failed"
    assert site.task(workflow_id, "one").reason == "interrupted-too-often"


def test_an_idle_worker_that_was_killed_is_replaced(site: Installation) -> None:
    first = site.submit([{"id": "t", "operation": "selftest.noop"}])
    site.orchestrator()
    site.wait_ended(first)
    (idle,) = wait_for(site.workers)
    send_signal(idle, signal.SIGKILL)
    second = site.submit([{"id": "t", "operation": "selftest.noop"}])
    assert site.wait_ended(second) == "succeeded"


def test_a_stopped_idle_worker_does_not_stop_the_orchestrator(site: Installation) -> None:
    site.settings(orchestrator_idle_worker_seconds=0.2)
    first = site.submit([{"id": "t", "operation": "selftest.sleep", "params": {"seconds": 0}}])
    site.orchestrator()
    (worker,) = wait_for(site.workers)
    send_signal(worker, signal.SIGSTOP)
    wait_for(lambda: not is_alive(worker) or site.state(first) != "succeeded", what="the stopped worker's end")
    send_signal(worker, signal.SIGCONT)
    site.wait_ended(first)
    second = site.submit([{"id": "t", "operation": "selftest.noop"}])
    assert site.wait_ended(second) == "succeeded"


@pytest.mark.parametrize("adopted", [False, True])
def test_a_stopped_worker_keeps_the_deadline_of_its_attempt(site: Installation, gate: Gates, adopted: bool) -> None:
    one = gate("one")
    workflow_id = site.submit([at_gate("one", one, "trial.shell", timeout="2s")])
    process = site.orchestrator()
    one.reached()
    if adopted:
        process.kill()
        process.wait()
    assert send_signal(site.worker(workflow_id, "one"), signal.SIGSTOP)
    if adopted:
        site.orchestrator()
    assert site.wait_ended(workflow_id) == "failed"
    assert site.outcomes(workflow_id, "one") == ["timed_out"]


@pytest.mark.parametrize("adopted", [False, True])
def test_a_stopped_worker_heeds_a_cancel(site: Installation, gate: Gates, adopted: bool) -> None:
    one = gate("one")
    workflow_id = site.submit([at_gate("one", one, "trial.shell")])
    process = site.orchestrator()
    one.reached()
    if adopted:
        process.kill()
        process.wait()
        site.orchestrator()
    assert send_signal(site.worker(workflow_id, "one"), signal.SIGSTOP)
    site.ask("cancel", workflow_id)
    assert site.wait_ended(workflow_id) == "cancelled"
    assert site.outcomes(workflow_id, "one") == ["cancelled"]


def test_idle_workers_end_and_are_started_again(site: Installation) -> None:
    site.settings(orchestrator_idle_worker_seconds=0.2)
    process = site.orchestrator()
    assert site.workers() == [], "workers start on demand"
    for _ in range(2):
        workflow_id = site.submit([{"id": "t", "operation": "selftest.noop"}])
        assert site.wait_ended(workflow_id) == "succeeded"
        wait_for(lambda: not site.workers(), what="the end of idle workers")
    assert process.poll() is None


def test_slots_bound_what_runs_at_once(site: Installation, gate: Gates) -> None:
    gates = [gate(f"g{number}") for number in range(3)]
    workflow_id = site.submit([at_gate(f"t{number}", one) for number, one in enumerate(gates)])
    site.orchestrator(slots=2)
    gates[0].reached()
    gates[1].reached()
    assert site.states(workflow_id) == {"t0": "running", "t1": "running"}
    gates[0].open()
    gates[2].reached()
    wait_for(lambda: site.states(workflow_id) == {"t0": "succeeded", "t1": "running", "t2": "running"})
    gates[1].open()
    gates[2].open()
    assert site.wait_ended(workflow_id) == "succeeded"


def test_workers_end_with_an_idle_orchestrator_that_was_killed(site: Installation) -> None:
    workflow_id = site.submit([{"id": "t", "operation": "selftest.noop"}])
    process = site.orchestrator()
    site.wait_ended(workflow_id)
    assert site.workers()
    process.kill()
    wait_for(lambda: not site.workers(), what="the end of the workers")


def test_nobody_waits_for_the_output_of_an_orchestrator_whose_task_goes_on(site: Installation, gate: Gates) -> None:
    """A worker outlives it, and must not hold the pipe that a shell or cron reads to its end."""
    one = gate("one")
    workflow_id = site.submit([at_gate("one", one)])
    process = subprocess.Popen(
        [sys.executable, "-m", "provisioning", "orchestrator", "run"],
        env=site.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        one.reached()
    finally:
        process.kill()
    with process:
        assert process.communicate(timeout=10)[0] == b""
    assert is_alive(site.worker(workflow_id, "one"))
    assert identity(process.pid) is None
    one.open()
    site.drain()
    assert site.outcomes(workflow_id, "one") == ["succeeded"]


def test_the_orchestrator_s_own_environment_and_folder_do_not_matter(site: Installation) -> None:
    """Started in a folder that is gone, with descriptors of its parent open."""
    workflow_id = site.submit([{"id": "t", "operation": "trial.surroundings"}])
    gone = site.root / "gone"
    gone.mkdir()
    parent = os.open(site.root / "parent", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(parent, True)
    process = subprocess.Popen(
        [sys.executable, "-m", "provisioning", "orchestrator", "run", "--until-empty"],
        env=site.environment,
        cwd=gone,
        pass_fds=[parent],
    )
    gone.rmdir()
    os.close(parent)
    assert process.wait(30) == 0
    result = site.outcome(workflow_id, "t").result
    assert result["cwd"] == "/"
    assert "parent" not in "".join(result["own"] + result["child"]).replace(str(site.root), "")


def test_a_worker_without_a_folder_of_its_own_says_so(site: Installation) -> None:
    pool = Pool(site.spool, 1, 60.0)
    key = Key("01kc0000000000000000000001", "a", 1)
    shutil.rmtree(site.spool.tmp)
    worker = pool._workers[pool.assign(key, ())]
    pool.start(AttemptRequest(key, ("/nu",), {}, {}, {}, None, None, 1.0, 1, 1))
    wait_for(lambda: not worker.process.is_alive())
    (news,) = pool.news()
    assert (news.seen, "No such file" in news.problem) == (Seen.NOT_STARTED, True)
    pool.close()
    site.spool.tmp.mkdir()


def test_a_worker_that_cannot_be_told_is_replaced(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for its command for ever, and the attempt would be under way as long."""
    pool = Pool(site.spool, 1, 60.0)
    key = Key("01kc0000000000000000000001", "a", 1)
    worker = pool._workers[pool.assign(key, ())]

    def refuse(*_args: object) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(Connection, "send_bytes", refuse)
    pool.start(AttemptRequest(key, ("/nu",), {}, {}, {}, None, None, 1.0, 1, 1))
    wait_for(lambda: not worker.process.is_alive())
    assert [news.seen for news in pool.news()] == [Seen.LOST]
    pool.close()


def test_a_cancel_that_the_pipe_refuses_is_told_by_a_signal(
    site: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(site.spool, 1, 60.0)
    key = Key("01kc0000000000000000000001", "a", 1)
    worker = pool._workers[pool.assign(key, ())]

    def refuse(*_args: object) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(Connection, "send_bytes", refuse)
    pool.cancel(key)
    wait_for(lambda: not worker.process.is_alive(), what="the end of a worker that has nothing to end")
    assert [news.seen for news in pool.news()] == [Seen.LOST]
    pool.close()


def test_an_orchestrator_whose_forkserver_is_killed_goes_on_with_another(site: Installation) -> None:
    first = site.submit([site.mark("a")])
    process = site.orchestrator()
    assert site.wait_ended(first) == "succeeded"
    for _ in range(2):
        for child in map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()):
            if b"multiprocessing.forkserver" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(child, signal.SIGKILL)
        workflow_id = site.submit([site.mark("a")])
        assert site.wait_ended(workflow_id) == "succeeded", site.said()
    assert process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
def test_a_signal_for_the_orchestrator_leaves_what_forks_the_workers(
    site: Installation, gate: Gates, number: signal.Signals
) -> None:
    """It may be sent to the whole group; without the forkserver, workers look dead."""
    one = gate("one")
    workflow_id = site.submit([at_gate("a", one)])
    site.orchestrator()
    one.reached()
    sight = look_at(site.worker(workflow_id, "a").pid)
    assert sight is not None
    forkserver = identity(sight.parent)
    assert forkserver is not None
    assert b"multiprocessing.forkserver" in Path(f"/proc/{forkserver.pid}/cmdline").read_bytes()
    assert send_signal(forkserver, number)
    one.open()
    assert site.wait_ended(workflow_id) == "succeeded"
    assert is_alive(forkserver)


def test_what_has_waited_in_vain_is_not_started_again(site: Installation) -> None:
    """A task that takes long keeps no processes coming and going for the one behind it."""
    pool = Pool(site.spool, 1, 60.0)
    likely = [Ahead(("/bin/cat",), {})]
    pool.prepare(likely)
    assert len(pool._workers) == 1
    pool.trim(boottime() + 61)
    assert not pool._workers
    pool.prepare(likely)
    assert not pool._workers
    pool.assign(Key("01kc0000000000000000000001", "a", 1), ())
    pool.start(AttemptRequest(Key("01kc0000000000000000000001", "a", 1), ("/nu",), {}, {}, {}, None, None, 1.0, 1, 1))
    pool.prepare(likely)
    assert len(pool._workers) == 2, "something has begun: there is a new guess"
    pool.close()


def test_a_worker_that_cannot_be_forked_is_an_error_of_the_host(
    site: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forkserver ends without an answer where it cannot fork."""
    pool = Pool(site.spool, 1, 60.0)
    open_before = os.listdir("/proc/self/fd")

    def unanswered(_process: object) -> None:
        raise EOFError("unexpected EOF")

    monkeypatch.setattr(pool._context.Process, "start", unanswered)
    with pytest.raises(OSError, match="no worker") as refused:
        pool.assign(Key("0" * 26, "a", 1), ())
    assert refused.value.errno == errno.EAGAIN
    assert os.listdir("/proc/self/fd") == open_before
    monkeypatch.undo()
    assert pool.assign(Key("0" * 26, "a", 1), ())
    pool.close()
