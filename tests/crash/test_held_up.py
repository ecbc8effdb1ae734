"""Whoever holds a lock of the spool for ever holds up what needs it, and nothing that waits has no end."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from provisioning.cli import run
from provisioning.core.workflow import Task
from provisioning.errors import SpoolUnusable
from provisioning.storage import files
from provisioning.storage import spool as storage_spool
from provisioning.storage.check import check
from provisioning.storage.lock import Lock
from tests.crash.host import Host


def test_operations_that_are_being_taken_out_hold_up_a_claim_and_no_tick(host: Host) -> None:
    workflow_id = host.submit()
    cleanup = Lock(host.person.locks / "nulib")
    assert cleanup.take()
    orchestrator = host.begin()
    assert host.person.incoming_ids() == [workflow_id]
    due = orchestrator.next_start()
    assert due is not None
    assert due < host.instant().boottime + 2.0
    host.passed_seconds += 2.0
    orchestrator.tick()
    assert host.person.incoming_ids() == [workflow_id]
    cleanup.release()
    host.work()
    assert host.state(workflow_id) == "succeeded"


def test_operations_that_are_being_taken_out_hold_up_no_start(host: Host) -> None:
    """The clean-up that has their lock may be stopped: what has its plan needs nothing of it, be it less urgent."""
    host.config = replace(host.config, orchestrator=replace(host.config.orchestrator, slots=4))
    planned = host.submit(Task("a", "work.once"), Task("b", "work.once", depends_on=("a",)))
    orchestrator = host.begin()
    cleanup = Lock(host.person.locks / "nulib")
    assert cleanup.take()
    waiting = host.submit(priority=90)
    orchestrator.scan_soon()
    for _ in range(3):
        orchestrator.tick()
    assert (host.state(planned), host.ran()) == ("succeeded", ["a.1", "b.1"])
    assert host.person.incoming_ids() == [waiting]
    host.passed_seconds += 5.0
    orchestrator.tick()
    stuck = orchestrator.stuck(4.0)
    assert isinstance(stuck, SpoolUnusable), "a drain that waits so long for it says why"
    assert "a clean-up takes operations out" in str(stuck)
    cleanup.release()
    host.work()
    assert host.state(waiting) == "succeeded"


def test_a_submission_waits_for_others_with_an_id_and_not_for_ever(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_spool, "PATIENCE_SECONDS", 0.02)
    other = Lock(host.person.locks / "ids")
    assert other.take()
    with pytest.raises(SpoolUnusable, match="locks/ids"):
        host.submit(id="nightly")
    other.release()
    assert host.submit(id="nightly") in host.person.incoming_ids()


def test_a_record_of_the_orchestrator_that_cannot_be_read_is_none(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    path = host.root / "orchestrator.json"
    original = os.open

    def refuse(opened: Any, *rest: Any, **more: Any) -> int:
        if str(opened) == str(path):
            raise OSError(errno.EACCES, "not for you")
        return original(opened, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    assert host.person.running_orchestrator() is None


@pytest.mark.parametrize("data", [b"", b"{}", b"garbage"])
def test_a_record_of_the_orchestrator_that_is_damaged_is_found(host: Host, data: bytes) -> None:
    path = host.root / "orchestrator.json"
    path.write_bytes(data)
    assert host.person.running_orchestrator() is None
    assert [(problem.code, problem.file) for problem in check(host.root)] == [("damaged", str(path))]


@pytest.mark.parametrize("waits", [[], ["--json"]])
def test_what_was_accepted_is_said_before_anything_else_can_fail(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], waits: list[str]
) -> None:
    manifest = host.root.parent / "site.toml"
    manifest.write_text('schema = 1\nname = "site"\n[[tasks]]\nid = "a"\noperation = "work.once"\n')
    monkeypatch.setattr("provisioning.cli.context.Context.catalogue", host.load_nulib().catalogue)

    def refuse(_: object) -> None:
        raise SpoolUnusable("not now")

    monkeypatch.setattr(storage_spool.Spool, "running_orchestrator", refuse)
    assert run(["--spool", str(host.root), "batch", "submit", str(manifest), *waits]) == SpoolUnusable.exit_code
    (workflow_id,) = host.person.incoming_ids()
    assert workflow_id in capsys.readouterr().out


def test_a_drain_whose_disk_refuses_every_claim_ends_with_the_error(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has something to start all the time, so it goes on until it is stuck for as long as it may wait."""
    host.config = replace(host.config, orchestrator=replace(host.config.orchestrator, slots=4))
    workflow_id = host.submit()
    original = files.write_new

    def full(path: Path, data: bytes, *, durable: bool) -> None:
        if b'"nulib"' in data:
            raise OSError(errno.ENOSPC, "full")
        original(path, data, durable=durable)

    monkeypatch.setattr(files, "write_new", full)
    orchestrator = host.begin()
    max_wait, waited = 20.0, host.passed_seconds
    while (error := orchestrator.stuck(max_wait)) is None:
        due = orchestrator.next_start()
        assert due is not None
        assert due <= host.instant().boottime + max_wait
        assert host.passed_seconds < waited + 2 * max_wait
        host.passed_seconds += 1.01
        orchestrator.tick()
    assert isinstance(error, SpoolUnusable)
    assert error.exit_code == 6
    assert host.person.incoming_ids() == [workflow_id]
