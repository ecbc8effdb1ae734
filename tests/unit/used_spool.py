"""A spool with one of each file of the format."""

from __future__ import annotations

import hashlib
import os

import msgspec

from provisioning.core.catalogue import Operation
from provisioning.core.large import Summary
from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, Plan, Request, WorkflowCheckpoint
from provisioning.processes import own_identity, resident
from provisioning.storage import files
from provisioning.storage.active import name_active
from provisioning.storage.checkpoint import encode
from provisioning.storage.durations import learn
from provisioning.storage.limits import Wanted, taken
from provisioning.storage.lock import Lock
from provisioning.storage.notified import save_notified
from provisioning.storage.shared import Shared
from provisioning.storage.spool import OrchestratorRecord, Spool
from provisioning.storage.trees import planning
from provisioning.storage.waiting import WaitingViews
from tests.simulation.values import EPOCH, NULIB, checkpoint, graph, record, submission
from tests.unit.at_the_doors import put_at_the_doors

ONE, TWO, THREE = (f"01kc000000000000000000000{number}" for number in (1, 2, 3))
DIGEST = hashlib.sha256(b"{}").hexdigest()
OPERATIONS = {"selftest.noop": Operation("selftest.noop", "noop", "", "", (), None)}


def use(made: Spool) -> Lock:
    """Put one of each file into an empty spool; the lock of the workflow that is claimed."""
    for workflow_id, asked in ((ONE, None), (TWO, "nightly"), (THREE, "weekly")):
        made.submit(b"{}", "json", submission(workflow_id, id=asked, digest=DIGEST))
    lock = made.lock(ONE)
    folder = made.claim(ONE)
    assert lock
    folder.prepare()
    folder.save_plan(Plan(FORMAT, ONE, graph(["a:", "b: a"]), OPERATIONS, NULIB))
    folder.save_workflow(WorkflowCheckpoint(FORMAT, ONE, WorkflowState.RUNNING, "alice", EPOCH, "boot-1"))
    folder.save_task(checkpoint("a", TaskState.SUCCEEDED, Outcome.SUCCEEDED))
    outcome = msgspec.structs.replace(record("a", Outcome.SUCCEEDED, 1), workflow_id=ONE)
    files.write_once(folder.outcome_path("a", 1), encode(outcome), scratch=made.scratch)
    files.append(folder.log_path("a", 1), b"said")
    folder.append_event({"event": "x"})
    folder.save_summary(Summary(FORMAT, {"pending": 1, "succeeded": 1}))
    name_active(made.root, ONE)
    learn(made.root, graph(["a:", "b: a"]), {"a": 1.0})
    made.claim(THREE)
    files.remove_tree(made.forget(THREE))
    tree = {"tree/a.nu": b"", "entries/selftest.noop.nu": b"", "catalogue.json": b"{}"}
    files.publish_tree(tree, made.nulib / NULIB, made.scratch)
    put_at_the_doors(made, folder.path)
    made.nudge()
    made.request(Request(FORMAT, TWO, ONE, "cancel", "alice", EPOCH))
    made.take_orchestrator_lock().release()
    with planning(made), taken(made.locks, [Wanted("target:demo/server/web-1")]):
        pass
    made.save_orchestrator_record(OrchestratorRecord(FORMAT, resident(os.stat(made.root)), "wuji", EPOCH, "0.1.0", 10))
    for name in ("process", "group"):
        files.write_atomic(made.scratch.path / name, encode(own_identity()), durable=False)
    files.append(made.logs / "orchestrator.log", b"")
    files.write_atomic(made.root / "metrics.prom", b"", durable=False, scratch=made.scratch)
    save_notified(made, 1)
    WaitingViews(made.workflows).show({ONE: {"b": "pending: Resources"}})
    nodes = made.root.with_name("nodes")
    nodes.mkdir(mode=0o700)
    Shared(made, nodes, made.scratch).close()
    telling = Lock(made.locks / "notify")
    telling.take()
    telling.release()
    made.nudge()
    return lock
