"""Rows of the crash table: the spool itself, submissions and claims."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from provisioning.clock import new_ulid, now
from provisioning.core.identifiers import Resident
from provisioning.core.workflow import FORMAT, Task
from provisioning.errors import SpoolUnusable
from provisioning.orchestrator.announcement import Announcement
from provisioning.processes import own_identity
from provisioning.storage import files, reading
from provisioning.storage.check import check
from provisioning.storage.spool import OrchestratorRecord, Spool
from tests.crash.host import Host

# The spool itself


def test_spool_half_made(host: Host, tmp_path: Path) -> None:
    root = tmp_path / "new"
    for step, path in (("write_atomic", "/format"), ("make_dir", "/workflows"), ("make_dir", "/logs")):
        host.crash(step, path, of=lambda: Spool.create(root))
        with pytest.raises(SpoolUnusable, match=r"there is no spool|lacks"):
            Spool.open(root)
    Spool.create(root)
    assert check(root) == []


def test_scratch_of_the_dead(host: Host) -> None:
    host.crash("move", "/incoming/*", of=host.submit)
    (left,) = reading.list_names(host.person.tmp)
    assert sorted(os.listdir(host.person.tmp / left / "1")) == ["manifest.json", "submission.json"]
    (host.person.tmp / new_ulid()).mkdir()  # made, and not locked yet
    host.recover()
    assert host.person.workflow_ids() == []


def test_operations_without_plan(host: Host) -> None:
    workflow_id = host.submit()
    host.crash("write_atomic", "/plan.json")
    assert reading.list_names(host.person.nulib) == ["d" * 64]
    assert reading.list_names(host.person.incoming / workflow_id) != ["plan.json"]
    host.recover()
    assert (host.state(workflow_id), host.ran()) == ("succeeded", ["a.1"])


def test_orchestrator_record_of_the_dead(host: Host) -> None:
    me = own_identity()
    strangers = [Resident(me.boot_id, me.pid, me.starttime + 1), Resident("another boot", me.pid, me.starttime)]
    for stranger in strangers:
        host.person.save_orchestrator_record(OrchestratorRecord(FORMAT, stranger, "host", now(), "0", 1))
        assert host.person.running_orchestrator() is None
    elsewhere = Resident(me.boot_id, me.pid, me.starttime, "1:1")  # the spool was copied from there
    host.person.save_orchestrator_record(OrchestratorRecord(FORMAT, elsewhere, "host", now(), "0", 1))
    assert host.person.running_orchestrator() is None
    lock = host.person.take_orchestrator_lock()
    host.recover()
    lock.release()


def test_orchestrator_record_lost(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    lock = host.person.take_orchestrator_lock()
    settings = replace(host.config.orchestrator, scan_seconds=0.0)
    announcement = Announcement(host.person, settings)
    said = host.person.orchestrator_record()
    assert said == host.person.running_orchestrator()
    for data in (None, b"", b"{"):
        files.remove(host.root / "orchestrator.json")
        if data is not None:
            (host.root / "orchestrator.json").write_bytes(data)
        lost = host.person.running_orchestrator()
        assert lost is not None
        assert (lost.process.pid, lost.started_at) == (os.getpid(), None), "the lock says it"
        announcement.keep()
        assert host.person.orchestrator_record() == said
    (host.root / "orchestrator.json").unlink()
    (host.root / "orchestrator.json").mkdir()
    for _ in range(3):
        announcement.keep()
    (host.root / "orchestrator.json").rmdir()
    announcement.keep()
    assert host.person.orchestrator_record() == said
    told = [record.getMessage() for record in caplog.records]
    assert len([text for text in told if "lost or damaged" in text]) == 4
    assert len([text for text in told if "cannot write" in text]) == 1, "and not at each look"
    host.recover()
    lock.release()


# Submission


def test_id_without_workflow(host: Host) -> None:
    host.crash("move", "/incoming/*", of=lambda: host.submit(id="mine"))
    assert reading.list_names(host.person.ids) == ["mine.json"]
    host.recover()
    workflow_id = host.submit(id="mine")
    host.recover()
    assert host.state(workflow_id) == "succeeded"
    assert host.submit(id="mine") == workflow_id
    assert host.person.workflow_ids() == [workflow_id]


def test_incoming(host: Host) -> None:
    host.crash("move", "/incoming/*", after=True, of=host.submit)
    (workflow_id,) = host.person.incoming_ids()
    host.recover()
    assert (host.state(workflow_id), host.ran()) == ("succeeded", ["a.1"])


def test_incoming_with_lock(host: Host) -> None:
    workflow_id = host.submit()
    host.crash("publish_tree", "*")  # as it makes the plan
    assert host.person.incoming_ids() == [workflow_id]
    assert (host.person.incoming / workflow_id / "lock").exists()
    host.recover()
    assert host.ran() == ["a.1"]


def test_plan_without_claim(host: Host) -> None:
    workflow_id = host.submit()
    host.crash("move", "/workflows/*")
    assert (host.person.incoming / workflow_id / "plan.json").exists()
    host.operations["work.once"] = {"idempotent": True}  # the plan decides, not what the operations are now
    host.recover()
    assert (host.state(workflow_id), host.ran()) == ("succeeded", ["a.1"])
    plan = host.folder(workflow_id).plan()
    assert plan is not None
    assert not plan.operations["work.once"].idempotent


def test_reason_without_rejection(host: Host) -> None:
    kept = host.operations.pop("work.fail")
    again = host.submit(Task("a", "work.fail"))
    host.crash("move", f"/rejected/*{again}")
    assert (host.person.incoming / again / "reason.json").exists()
    assert check(host.root) == []
    host.operations["work.fail"] = kept
    host.recover()
    assert (host.state(again), host.has(again, "reason.json")) == ("failed", False)
    never = host.submit(Task("a", "work.gone"))
    host.crash("move", f"/rejected/*{never}")
    host.recover()
    (rejected,) = reading.list_names(host.person.rejected)
    assert rejected.endswith(never)


# Claims


def test_claim_without_checkpoint(host: Host) -> None:
    workflow_id = host.submit()
    host.crash("write_atomic", "/workflow.json")
    assert host.has(workflow_id, "plan.json", "lock")
    assert not host.has(workflow_id, "workflow.json")
    host.recover()
    assert (host.state(workflow_id), host.ran()) == ("succeeded", ["a.1"])


def test_claim_without_folders(host: Host) -> None:
    workflow_id = host.submit()
    host.crash("make_dir", "/outcomes")
    assert host.has(workflow_id, "tasks")
    assert not host.has(workflow_id, "outcomes")
    host.recover()
    assert host.ran() == ["a.1"]


def test_held_by_nobody(host: Host) -> None:
    workflow_id = host.submit()
    host.crash("write_atomic", "/tasks/a.json")
    assert (host.state(workflow_id), host.has(workflow_id, "tasks/a.json")) == ("running", False)
    host.recover()
    assert (host.state(workflow_id), host.ran()) == ("succeeded", ["a.1"])
