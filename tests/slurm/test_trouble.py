"""What goes wrong around attempts on a real Slurm: each workflow ends as the policies of its tasks say."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.installation import Gate, Installation
from tests.slurm.cluster import NODES, Cluster
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

PATIENCE_SECONDS = 90.0
Gates = Callable[[str], Gate]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gates]:
    """Makes gates at which scripts wait."""
    with contextlib.ExitStack() as stack:

        def make(name: str = "gate") -> Gate:
            made = Gate(tmp_path / name)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture(autouse=True)
def whole(cluster: Cluster) -> Iterator[None]:
    """The cluster is whole again after each test."""
    yield
    cluster.mend()


def at_gate(task_id: str, gate: Gate, operation: str, **more: Any) -> dict[str, Any]:
    """A task that waits at a gate, then says that it is done: `trial.again` may be done twice, `trial.shell` not."""
    return {"id": task_id, "operation": operation, "params": {"script": f"{gate.script}; echo done"}, **more}


def wait_outcomes(site: Installation, workflow_id: str, task_id: str, *outcomes: str) -> None:
    """Wait until the task's attempts have ended so, or go on: `None`."""
    wait_for(
        lambda: site.outcomes(workflow_id, task_id) == list(outcomes),
        PATIENCE_SECONDS,
        lambda: f"{outcomes} of {task_id}\n{site.said()}",
    )


def reason(site: Installation, workflow_id: str) -> str:
    """What `workflow explain` says."""
    process = site.start("workflow", "explain", workflow_id)
    assert process.wait(30) == 0
    return (site.root / f"said.{len(site._started) - 1}").read_text()


def wide(site: Installation, count: int) -> list[dict[str, Any]]:
    """Tasks in rows of eight, each after one of the row before; none may be done twice."""
    return [site.mark(f"t{i}", **({"depends_on": [f"t{i - 8}"]} if i >= 8 else {})) for i in range(count)]


def work_through_kills(site: Installation, count: int, kills: int) -> str:
    """Work such a workflow, with orchestrators that are killed after so many tasks more each time."""
    workflow_id = site.submit(wide(site, count))
    for number in range(kills):
        process = site.orchestrator()
        done = count * (number + 1) // (kills + 1)
        wait_for(lambda done=done: len(site.mark_lines()) >= done, PATIENCE_SECONDS, site.said)  # type: ignore[misc]
        process.kill()
        process.wait()
    site.orchestrator()
    return workflow_id


def test_orchestrators_killed_in_the_middle(site: Installation) -> None:
    workflow_id = work_through_kills(site, 16, kills=3)
    assert site.wait_ended(workflow_id, PATIENCE_SECONDS) == "succeeded"
    assert sorted(site.mark_lines()) == sorted(f"t{i}" for i in range(16))


@pytest.mark.long
def test_orchestrators_killed_fifty_times(site: Installation) -> None:
    workflow_id = work_through_kills(site, 200, kills=50)
    assert site.wait_ended(workflow_id, 600) == "succeeded"
    assert sorted(site.mark_lines()) == sorted(f"t{i}" for i in range(200))


def test_what_ended_while_nobody_was_there(site: Installation, gate: Gates) -> None:
    """An orchestrator that was away for long finds outcome and log, however long Slurm has forgotten the job."""
    one = gate("one")
    workflow_id = site.submit([at_gate("one", one, "trial.shell"), site.mark("last", depends_on=["one"])])
    process = site.orchestrator()
    one.reached(1, PATIENCE_SECONDS)
    process.kill()
    process.wait()
    one.open(1)
    (folder,) = site.config.slurm.directory.glob(f"*/{workflow_id}/one.1")  # type: ignore[union-attr]
    wait_for((folder / "outcome.json").exists, PATIENCE_SECONDS)
    site.orchestrator()
    assert site.wait_ended(workflow_id, PATIENCE_SECONDS) == "succeeded"
    assert b"done" in site.log(workflow_id, "one")
    assert site.mark_lines() == ["last"]


def test_a_controller_that_is_away_is_waited_for(site: Installation, cluster: Cluster, gate: Gates) -> None:
    one, two = gate("one"), gate("two")
    workflow_id = site.submit([at_gate("one", one, "trial.shell"), site.mark("last", depends_on=["one"])])
    ended = site.submit([at_gate("two", two, "trial.shell")])
    site.orchestrator()
    for each in (one, two):
        each.reached(1, PATIENCE_SECONDS)
    cluster.end("slurmctld")
    site.ask("cancel", ended)
    other = site.submit([site.mark("other")])
    wait_for(lambda: "Slurm does not answer" in reason(site, other), PATIENCE_SECONDS, site.said)
    one.open(1)
    wait_outcomes(site, workflow_id, "one", "succeeded")
    site.ask("cancel", other)  # nobody has begun it: it needs no controller
    assert site.wait_ended(other, PATIENCE_SECONDS) == "cancelled"
    cluster.start_controller()
    assert site.wait_ended(workflow_id, PATIENCE_SECONDS) == "succeeded"
    assert site.mark_lines() == ["last"]
    assert site.wait_ended(ended, PATIENCE_SECONDS) == "cancelled"
    assert site.outcomes(ended, "two") == ["cancelled"]


def test_a_controller_that_forgets_its_last_seconds(site: Installation, cluster: Cluster, gate: Gates) -> None:
    """It gives their numbers to others, and their nodes end what they run: what then happens the policies say."""
    gates = {name: gate(name) for name in ("rerun", "held", "ended")}
    before = cluster.saved_state()
    operations = {"rerun": "trial.again", "held": "trial.shell", "ended": "trial.shell"}
    ids = {name: site.submit([at_gate(name, gates[name], operations[name])]) for name in gates}
    site.orchestrator()
    for each in gates.values():
        each.reached(1, PATIENCE_SECONDS)
    latest = max(int(node_of(cluster, ids[name], name)[1]) for name in gates)
    cluster.end("slurmctld", signal.SIGKILL)
    gates["ended"].open(1)
    wait_outcomes(site, ids["ended"], "ended", "succeeded")
    shutil.rmtree(cluster.root / "ctld")
    before.rename(cluster.root / "ctld")
    cluster.start_controller()
    gates["rerun"].reached(2, PATIENCE_SECONDS)
    assert int(node_of(cluster, ids["rerun"], "rerun")[1]) <= latest, "a number is given twice"
    gates["rerun"].open(2)
    wait_outcomes(site, ids["rerun"], "rerun", "interrupted", "succeeded")
    wait_outcomes(site, ids["held"], "held", "interrupted")
    site.wait_state(ids["held"], "paused", PATIENCE_SECONDS)
    assert site.task(ids["held"], "held").held


def node_of(cluster: Cluster, workflow_id: str, task_id: str) -> tuple[str, str]:
    """The node on which the attempt runs, and the number of its job."""
    for line in cluster.do("squeue", "--noheader", "--format=%N|%A|%j").splitlines():
        node, number, name = line.split("|")
        if f".{workflow_id}.{task_id}." in name:
            return node, number
    raise AssertionError(cluster.do("squeue"))


def test_a_node_daemon_that_dies_alone_takes_nothing_with_it(site: Installation, cluster: Cluster, gate: Gates) -> None:
    """Nobody can tell Slurm that the attempt has ended: its outcome says so."""
    one = gate("one")
    workflow_id = site.submit([at_gate("one", one, "trial.shell")])
    site.orchestrator()
    one.reached(1, PATIENCE_SECONDS)
    node, number = node_of(cluster, workflow_id, "one")
    cluster.end(f"slurmd-{node}", signal.SIGKILL)
    one.open(1)
    assert site.wait_ended(workflow_id, PATIENCE_SECONDS) == "succeeded"
    assert site.outcomes(workflow_id, "one") == ["succeeded"]
    assert number in cluster.do("squeue", "--noheader", "--format=%A").split(), "as far as Slurm knows, it runs"
    cluster.start_node(node)
    wait_for(lambda: number not in cluster.do("squeue", "--noheader", "--format=%A").split(), PATIENCE_SECONDS)


def test_a_node_that_dies_with_what_it_runs(site: Installation, cluster: Cluster, gate: Gates) -> None:
    again, once = gate("again"), gate("once")
    ids = [site.submit([at_gate("a", again, "trial.again")]), site.submit([at_gate("o", once, "trial.shell")])]
    site.orchestrator()
    for each in (again, once):
        each.reached(1, PATIENCE_SECONDS)
    found = [node_of(cluster, workflow_id, task_id) for workflow_id, task_id in zip(ids, ("a", "o"), strict=True)]
    for node in {node for node, _ in found}:
        cluster.end(f"slurmd-{node}", signal.SIGKILL)
    for node, number in found:
        cluster.kill_job(number)
        # What the controller finds by itself once the node has not answered for SlurmdTimeout.
        cluster.do("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=trial")
    cluster.mend()
    again.reached(2, PATIENCE_SECONDS)
    again.open(2)
    wait_outcomes(site, ids[0], "a", "interrupted", "succeeded")
    wait_outcomes(site, ids[1], "o", "interrupted")
    site.wait_state(ids[1], "paused", PATIENCE_SECONDS)


def test_a_wrong_key_of_munge_is_waited_out(site: Installation, cluster: Cluster) -> None:
    conf = site.root / "client.conf"
    cluster.start_munged("munged-other")
    cluster.client_conf(conf, munged="munged-other")
    site.orchestrator()
    workflow_id = site.submit([site.mark("first"), site.mark("last", depends_on=["first"])])
    # What Slurm says of a key that is not the controller's: "Zero Bytes were transmitted or received".
    wait_for(lambda: re.search(r"(sbatch|squeue): \w", reason(site, workflow_id)), PATIENCE_SECONDS, site.said)
    assert site.states(workflow_id) == {"first": "running"}
    cluster.client_conf(conf)
    cluster.end("munged-other")
    assert site.wait_ended(workflow_id, PATIENCE_SECONDS) == "succeeded"
    assert site.mark_lines() == ["first", "last"]


def test_a_drained_node_gets_nothing_and_the_other_does_it(site: Installation, cluster: Cluster) -> None:
    cluster.do("scontrol", "update", "NodeName=n1", "State=DRAIN", "Reason=trial")
    try:
        site.orchestrator()
        workflow_id = site.submit([site.mark(f"t{i}") for i in range(6)])
        assert site.wait_ended(workflow_id, PATIENCE_SECONDS) == "succeeded"
        assert sorted(site.mark_lines()) == [f"t{i}" for i in range(6)]
    finally:
        cluster.do("scontrol", "update", "NodeName=n1", "State=RESUME")


def test_cancel_deadline_and_what_waits_in_the_queue(site: Installation, cluster: Cluster, gate: Gates) -> None:
    site.orchestrator()
    for node in NODES:
        cluster.do("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=trial")
    waiting = site.submit([at_gate("w", gate("w"), "trial.shell")])
    wait_for(lambda: "with Slurm: pending" in reason(site, waiting), PATIENCE_SECONDS, site.said)
    site.ask("cancel", waiting)
    assert site.wait_ended(waiting, PATIENCE_SECONDS) == "cancelled"
    wait_for(lambda: waiting not in cluster.do("squeue", "--noheader", "--format=%j"), PATIENCE_SECONDS)
    for node in NODES:
        cluster.do("scontrol", "update", f"NodeName={node}", "State=RESUME")
    one = gate("one")
    running = site.submit([at_gate("r", one, "trial.shell"), at_gate("l", gate("l"), "trial.shell", timeout="1s")])
    one.reached(1, PATIENCE_SECONDS)
    wait_outcomes(site, running, "l", "timed_out")
    site.ask("cancel", running)
    assert site.wait_ended(running, PATIENCE_SECONDS) in ("cancelled", "failed")
    assert site.outcomes(running, "r") == ["cancelled"]


def test_a_stopped_orchestrator_lets_them_go_on_and_the_next_adopts(site: Installation, gate: Gates) -> None:
    site.settings(orchestrator_drain_seconds=0.2)
    one = gate("one")
    workflow_id = site.submit([at_gate("one", one, "trial.shell")])
    process = site.orchestrator()
    one.reached(1, PATIENCE_SECONDS)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    site.orchestrator()
    one.open(1)
    assert site.wait_ended(workflow_id, PATIENCE_SECONDS) == "succeeded"
    assert site.outcomes(workflow_id, "one") == ["succeeded"]


def test_a_job_that_somebody_ends_is_interrupted(site: Installation, cluster: Cluster, gate: Gates) -> None:
    one = gate("one")
    workflow_id = site.submit([at_gate("one", one, "trial.again")])
    site.orchestrator()
    one.reached(1, PATIENCE_SECONDS)
    cluster.do("scancel", node_of(cluster, workflow_id, "one")[1])
    one.reached(2, PATIENCE_SECONDS)
    one.open(2)
    assert site.wait_ended(workflow_id, PATIENCE_SECONDS) == "succeeded"
    assert site.outcomes(workflow_id, "one") == ["interrupted", "succeeded"]


def test_a_secret_is_in_no_job_and_no_file_of_others(site: Installation, cluster: Cluster, gate: Gates) -> None:
    folder = site.root / "credentials"
    folder.mkdir(mode=0o700)
    (folder / "token").touch(0o600)
    (folder / "token").write_text("very-secret-word\n")
    site.settings(paths_credentials=folder)
    site.orchestrator()
    one, word = gate("one"), "another-secret-word"
    params = {"script": f"{one.script}; echo {word}"}
    workflow_id = site.submit(
        [
            {"id": "one", "operation": "trial.shell", "params": params},
            {"id": "two", "operation": "trial.secret", "params": {"token": {"credential": "token"}}},
        ]
    )
    one.reached(1, PATIENCE_SECONDS)
    _, number = node_of(cluster, workflow_id, "one")
    job = cluster.do("scontrol", "show", "job", "-dd", number) + cluster.do(
        "scontrol", "write", "batch_script", number, "-"
    )
    assert "attempt" in job
    assert "secret-word" not in job
    root = site.config.slurm.directory
    assert root is not None
    holding = [path for path in root.rglob("*") if path.is_file() and b"secret-word" in path.read_bytes()]
    assert holding == [path for path in holding if path.name == "order.json"]
    assert all(os.stat(path).st_mode & 0o077 == 0 for path in holding)
    assert not any(b"very-secret-word" in path.read_bytes() for path in holding)
    one.open(1)
    assert site.wait_ended(workflow_id, PATIENCE_SECONDS) == "succeeded"
    assert b"very-secret-word" not in site.log(workflow_id, "two")
    assert not list(root.glob(f"*/{workflow_id}/*/order.json")), "what has ended leaves no params behind"


def test_where_each_task_is_made(site: Installation, cluster: Cluster) -> None:
    """Task before group before operation before config; what holds a target is made here."""
    site.settings(groups_quick=2, executors_quick="local")
    site.orchestrator()
    noop = {"operation": "selftest.noop"}
    workflow_id = site.submit(
        [
            {"id": "plain", **noop},
            {"id": "grouped", "group": "quick", **noop},
            {"id": "said", "group": "quick", "executor": "slurm", **noop},
            {"id": "local", "executor": "local", **noop},
            {"id": "target", "operation": "trial.alone", "params": {"name": "x", "script": "true"}},
        ]
    )
    assert site.wait_ended(workflow_id, PATIENCE_SECONDS) == "succeeded", site.said()
    found = {task.task_id: task.attempts[-1].executor for task in site.folder(workflow_id).tasks()}
    assert found == {"plain": "slurm", "grouped": "local", "said": "slurm", "local": "local", "target": "local"}
    page = site.start("workflow", "status", workflow_id, "--json")
    assert page.wait(30) == 0
    shown = json.loads((site.root / f"said.{len(site._started) - 1}").read_text())
    assert {task["task_id"]: task["state"] for task in shown["tasks"]} == dict.fromkeys(found, "succeeded")
