"""An orchestrator that is killed: what it left is adopted or called interrupted, never done twice, never lost."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from provisioning.core.states import WorkflowState
from provisioning.execution.ending import holders, signal_group
from provisioning.processes import is_alive, send_signal
from provisioning.storage import reading
from provisioning.storage.checkpoint import encode
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

Gates = Callable[[str], Gate]


def marking(site: Installation, task_id: str, gate: Gate, **more: Any) -> dict[str, Any]:
    """A task that waits at a gate, then leaves its mark, and must not run twice."""
    script = f"{gate.script}; echo {task_id} >> {site.marks}"
    return {"id": task_id, "operation": "trial.shell", "params": {"script": script}, **more}


def kill(process: subprocess.Popen[bytes]) -> None:
    """End it by force, and see it dead."""
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_a_live_task_is_adopted(site: Installation, gate: Gates) -> None:
    one = gate("one")
    workflow_id = site.submit([marking(site, "a", one), site.mark("b", depends_on=["a"])])
    first = site.orchestrator()
    one.reached()
    worker = site.worker(workflow_id, "a")
    kill(first)
    site.orchestrator()
    other = site.submit([{"id": "t", "operation": "selftest.noop"}])
    assert site.wait_ended(other) == "succeeded"
    assert is_alive(worker)
    assert site.states(workflow_id) == {"a": "running"}
    one.open()
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "a") == ["succeeded"]
    assert site.mark_lines() == ["a", "b"]


def test_an_outcome_that_nobody_saw_counts(site: Installation, gate: Gates) -> None:
    """The task ends while no orchestrator lives."""
    one = gate("one")
    workflow_id = site.submit([marking(site, "a", one), site.mark("b", depends_on=["a"])])
    process = site.orchestrator()
    one.reached()
    kill(process)
    one.open()
    wait_for(lambda: site.folder(workflow_id).outcome("a", 1))
    assert site.states(workflow_id) == {"a": "running"}
    assert site.drain() == 0
    assert site.outcomes(workflow_id, "a") == ["succeeded"]
    assert site.mark_lines() == ["a", "b"]


@pytest.mark.parametrize("idempotent", [True, False])
def test_orchestrator_worker_and_nushell_killed_together(site: Installation, gate: Gates, idempotent: bool) -> None:
    one = gate("one")
    operation = "trial.again" if idempotent else "trial.shell"
    workflow_id = site.submit([{"id": "a", "operation": operation, "params": {"script": one.script}}])
    process = site.orchestrator()
    one.reached()
    log = site.folder(workflow_id).log_path("a", 1)
    everyone = holders(log)
    kill(process)
    for holder in [site.worker(workflow_id, "a"), *everyone]:
        send_signal(holder, signal.SIGKILL)
    wait_for(lambda: not holders(log))
    site.orchestrator()
    if idempotent:
        one.open(2)
        assert site.wait_ended(workflow_id) == "succeeded"
        assert site.outcomes(workflow_id, "a") == ["interrupted", "succeeded"]
    else:
        site.wait_state(workflow_id, "paused")
        assert site.outcomes(workflow_id, "a") == ["interrupted"]
        assert site.task(workflow_id, "a").held


def test_what_a_dead_worker_left_running_ends_before_the_task_starts_again(site: Installation, gate: Gates) -> None:
    """Orchestrator and worker are killed; nu, and a process that ignores TERM, go on holding the log."""
    one = gate("one")
    script = f"trap '' TERM; {one.script}; while :; do sleep 0.05; done"
    workflow_id = site.submit([{"id": "a", "operation": "trial.again", "params": {"script": script}}])
    process = site.orchestrator()
    one.reached()
    log = site.folder(workflow_id).log_path("a", 1)
    left = [holder for holder in holders(log) if holder != site.worker(workflow_id, "a")]
    assert len(left) >= 2
    kill(process)
    send_signal(site.worker(workflow_id, "a"), signal.SIGKILL)
    site.orchestrator()
    one.reached(2)
    assert not any(map(is_alive, left))
    assert site.outcomes(workflow_id, "a") == ["interrupted", "None"]


def test_killed_twice_in_recovery(site: Installation, gate: Gates) -> None:
    gates = [gate(f"g{number}") for number in range(3)]
    workflow_id = site.submit([marking(site, f"t{number}", one) for number, one in enumerate(gates)])
    process = site.orchestrator()
    for one in gates:
        one.reached()
    for one in gates[:2]:
        kill(process)
        one.open()
        process = site.orchestrator()
    kill(process)
    gates[2].open()
    site.drain(max_wait=5)
    assert site.state(workflow_id) == "succeeded"
    assert sorted(site.mark_lines()) == ["t0", "t1", "t2"]
    assert [site.outcomes(workflow_id, f"t{number}") for number in range(3)] == [["succeeded"]] * 3


@pytest.mark.parametrize(
    ("log_is_there", "outcomes", "state"),
    [(False, ["succeeded"], "succeeded"), (True, ["interrupted"], "paused")],
)
def test_a_late_worker_gives_up(site: Installation, log_is_there: bool, outcomes: list[str], state: str) -> None:
    """Its orchestrator died after `starting`; its successor has settled the attempt before the worker wakes.

    Whether the log is there decides whether something of the attempt may have happened.
    """
    first = site.submit([{"id": "t", "operation": "selftest.noop"}])
    process = site.orchestrator(slots=1)
    site.wait_ended(first)
    (worker,) = wait_for(site.workers)
    send_signal(worker, signal.SIGSTOP)
    workflow_id = site.submit([site.mark("a")])
    wait_for(lambda: site.states(workflow_id) == {"a": "running"})
    assert site.worker(workflow_id, "a") == worker
    kill(process)
    if log_is_there:
        site.folder(workflow_id).log_path("a", 1).touch()
    site.orchestrator(slots=1)
    wait_for(lambda: site.outcomes(workflow_id, "a")[0] == outcomes[0])
    site.wait_state(workflow_id, state)
    marks = site.mark_lines()
    send_signal(worker, signal.SIGCONT)
    wait_for(lambda: not is_alive(worker), what="the late worker to give up")
    assert site.mark_lines() == marks == (["a"] if state == "succeeded" else [])
    assert site.outcomes(workflow_id, "a") == outcomes
    assert site.folder(workflow_id).outcome("a", 1) is None


def test_a_paused_workflow_s_running_task_is_adopted_and_the_pause_stays(site: Installation, gate: Gates) -> None:
    one = gate("one")
    workflow_id = site.submit([marking(site, "a", one), site.mark("b", depends_on=["a"])])
    process = site.orchestrator()
    one.reached()
    site.ask("pause", workflow_id)
    site.wait_state(workflow_id, "paused")
    kill(process)
    site.orchestrator()
    one.open()
    wait_for(lambda: site.states(workflow_id)["a"] == "succeeded")
    assert site.state(workflow_id) == "paused"
    site.ask("resume", workflow_id)
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.mark_lines() == ["a", "b"]


def test_term_lets_what_runs_finish_and_starts_nothing(site: Installation, gate: Gates) -> None:
    one = gate("one")
    workflow_id = site.submit([marking(site, "a", one), site.mark("b", depends_on=["a"])])
    process = site.orchestrator()
    one.reached()
    process.terminate()
    other = site.submit([site.mark("other")])
    one.open()
    assert process.wait(20) == 0
    assert site.states(workflow_id) == {"a": "succeeded"}
    assert site.state(other) == "queued"
    assert site.drain() == 0
    assert sorted(site.mark_lines()) == ["a", "b", "other"]


def test_what_runs_at_the_drain_deadline_goes_on_and_is_adopted(site: Installation, gate: Gates) -> None:
    site.settings(orchestrator_drain_seconds=0.2)
    one = gate("one")
    workflow_id = site.submit([marking(site, "a", one), site.mark("b", depends_on=["a"])])
    process = site.orchestrator()
    one.reached()
    process.terminate()
    assert process.wait(20) == 0
    assert is_alive(site.worker(workflow_id, "a"))
    site.orchestrator()
    one.open()
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "a") == ["succeeded"]
    assert site.mark_lines() == ["a", "b"]


def test_a_full_drain_waits_however_long(site: Installation, gate: Gates) -> None:
    site.settings(orchestrator_drain_seconds=0)
    one = gate("one")
    site.submit([marking(site, "a", one)])
    process = site.orchestrator()
    one.reached()
    process.send_signal(signal.SIGUSR1)
    site.submit([site.mark("never")])
    wait_for(site.spool.incoming_ids)
    one.open()
    assert process.wait(20) == 0
    assert site.mark_lines() == ["a"]


def test_stop_now_ends_what_runs_as_interrupted(site: Installation, gate: Gates) -> None:
    one = gate("one")
    tasks = [{"id": "a", "operation": "trial.again", "params": {"script": one.script}}]
    workflow_id = site.submit(tasks)
    process = site.orchestrator()
    one.reached()
    log = site.folder(workflow_id).log_path("a", 1)
    assert site.start("orchestrator", "stop", "--now").wait(20) == 0, site.said()
    assert process.wait(20) == 0
    assert holders(log) == []
    assert site.outcomes(workflow_id, "a") == ["interrupted"]
    assert site.task(workflow_id, "a").interruptions() == 0, "it is nobody's fault"
    site.orchestrator()
    one.open(2)
    assert site.wait_ended(workflow_id) == "succeeded"


def test_stop_now_waits_for_the_grace_of_what_runs_beyond_the_drain_deadline(site: Installation, gate: Gates) -> None:
    one = gate("one")
    site.settings(orchestrator_drain_seconds=0, limits_grace_seconds=1)
    script = f"trap '' TERM; {one.script}"
    workflow_id = site.submit([{"id": "a", "operation": "trial.again", "params": {"script": script}}])
    process = site.orchestrator()
    one.reached()
    assert site.start("orchestrator", "stop", "--now").wait(20) == 0, site.said()
    assert process.wait(20) == 0
    assert holders(site.folder(workflow_id).log_path("a", 1)) == []
    assert site.outcomes(workflow_id, "a") == ["interrupted"]
    assert site.task(workflow_id, "a").interruptions() == 0, "it is nobody's fault"


def test_scratch_of_the_dead_is_swept(site: Installation, gate: Gates) -> None:
    one = gate("one")
    workflow_id = site.submit([marking(site, "a", one)])
    process = site.orchestrator()
    one.reached()
    kill(process)
    process = site.orchestrator()
    one.open()
    site.wait_ended(workflow_id)
    process.terminate()
    assert process.wait(20) == 0
    left = [path for path in site.spool.tmp.iterdir() if not reading.scratch_is_held(path)]
    assert left == []


def test_a_group_whose_number_went_to_somebody_else_is_left_alone(site: Installation, gate: Gates) -> None:
    """The record of a dead worker names a group by its leader's start: a reused number is not signalled."""
    one = gate("one")
    workflow_id = site.submit([{"id": "a", "operation": "trial.again", "params": {"script": one.script}}])
    process = site.orchestrator()
    one.reached()
    last = site.task(workflow_id, "a").last
    assert last is not None
    bystander = subprocess.Popen(["sleep", "60"], process_group=0)
    try:
        group = site.spool.tmp / last.worker / "group"
        pid = int(group.read_bytes().partition(b'"pid":')[2].partition(b",")[0])
        group.write_bytes(group.read_bytes().replace(b'"pid":%d' % pid, b'"pid":%d' % bystander.pid))
        kill(process)
        send_signal(site.worker(workflow_id, "a"), signal.SIGKILL)
        site.orchestrator()
        one.open(2)
        assert site.wait_ended(workflow_id) == "succeeded"
        assert bystander.poll() is None
        assert not [holder for holder in holders(site.folder(workflow_id).log_path("a", 1)) if is_alive(holder)]
    finally:
        signal_group(bystander.pid, signal.SIGKILL)
        bystander.wait()


def test_a_kill_between_an_interruption_and_the_pause_that_follows_from_it(site: Installation, gate: Gates) -> None:
    """Only the task's record was made: the next orchestrator makes the other, and a person can say what now."""
    one = gate("one")
    workflow_id = site.submit([marking(site, "a", one)])
    process = site.orchestrator()
    one.reached()
    send_signal(site.worker(workflow_id, "a"), signal.SIGKILL)
    site.wait_state(workflow_id, "paused")
    kill(process)
    running = msgspec.structs.replace(site.workflow(workflow_id), state=WorkflowState.RUNNING, reason="")
    (site.folder(workflow_id).path / "workflow.json").write_bytes(encode(running))
    site.orchestrator()
    site.wait_state(workflow_id, "paused")
    site.ask("retry", workflow_id, "a")
    one.open(2)
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.mark_lines() == ["a"]
