"""What is wrong with one workflow, request or attempt stops nothing else, and is not taken for more than it is."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from provisioning.clock import new_ulid, now
from provisioning.core.workflow import FORMAT, Request, Task
from provisioning.errors import SpoolUnusable
from provisioning.storage.check import check
from provisioning.storage.checkpoint import Damaged
from tests.crash.hands import ShellNulib, end
from tests.crash.host import Host


def test_a_workflow_whose_folder_has_gone_keeps_no_other_from_starting(host: Host) -> None:
    gone, other = sorted((host.submit(), host.submit()))
    host.between("write_atomic", f"/{gone}/tasks/a.json", lambda: shutil.rmtree(host.root / "workflows" / gone))
    host.work()
    assert (host.state(other), host.ran()) == ("succeeded", ["a.1"])


def test_a_checkpoint_that_is_a_folder_keeps_no_other_from_starting(host: Host) -> None:
    broken, other = sorted((host.submit(), host.submit()))
    path = host.root / "workflows" / broken / "tasks" / "a.json"
    host.between("write_atomic", f"/{broken}/tasks/a.json", path.mkdir)
    host.work()
    assert (host.state(other), host.ran()) == ("succeeded", ["a.1"])


def unreadable(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Let the system refuse to open the file."""
    original = os.open

    def refuse(opened: Any, *rest: Any, **more: Any) -> int:
        if str(opened) == str(path):
            raise OSError(errno.EIO, "bad sector")
        return original(opened, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)


def test_a_request_that_cannot_be_read_keeps_no_workflow_from_its_end(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow_id, other = host.submit(), host.submit()
    path = host.person.request(Request(FORMAT, new_ulid(), workflow_id, "cancel", "alice", now()))
    unreadable(monkeypatch, path)
    host.work()
    assert (host.state(workflow_id), host.state(other)) == ("succeeded", "succeeded")
    assert [(each.code, each.file) for each in check(host.root)] == [("unreadable", str(path))]
    assert path.exists()


def test_a_log_that_is_made_as_the_attempt_is_given_up_is_not_taken_for_none(host: Host) -> None:
    """Its worker began between the look and the lock, did the work and died: nobody knows that it was not begun."""
    workflow_id, scratch = host.started()
    end(scratch)
    log = host.folder(workflow_id).log_path("a", 1)
    host.between("open_log_to_lock", "/a.1.log", log.touch)
    host.work()
    assert (host.state(workflow_id), host.outcomes(workflow_id), host.ran()) == ("paused", ["interrupted"], [])


def test_a_claim_that_the_disk_refuses_is_tried_again_when_the_rest_is_over(host: Host) -> None:
    """And the other candidates are not tried meanwhile: they would all meet the same."""
    found = sorted(host.submit() for _ in range(5))

    def full() -> None:
        raise OSError(errno.ENOSPC, "full")

    host.between("write_atomic", "/plan.json", full)
    orchestrator = host.begin()
    assert host.person.incoming_ids() == found
    due = orchestrator.next_start()
    assert due is not None
    assert due < host.instant().boottime + 2.0
    host.work()
    assert {host.state(workflow_id) for workflow_id in found} == {"succeeded"}


def test_operations_that_are_not_what_their_name_says_keep_no_other_workflow_from_its_end(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restored spool has what its backup had: nothing new is planned with that, and what was planned goes on."""
    planned = host.submit(Task("a", "work.once"), Task("b", "work.once", depends_on=("a",)))
    orchestrator = host.begin()

    def refuse(*_: object) -> None:
        raise SpoolUnusable("nulib/dd is not the operations that its name stands for")

    monkeypatch.setattr(ShellNulib, "keep", refuse)
    waiting = sorted(host.submit() for _ in range(2))
    orchestrator.scan_soon()
    for _ in range(3):
        orchestrator.tick()
    assert (host.state(planned), host.ran()) == ("succeeded", ["a.1", "b.1"])
    assert host.person.incoming_ids() == waiting
    assert sorted(orchestrator.errors) == waiting
    due = orchestrator.next_start()
    assert due is not None
    assert due > host.instant().boottime + 30.0, "each is left alone for a while"


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_what_a_person_asked_is_not_forgotten_with_the_checkpoint(host: Host, verb: str) -> None:
    """No crash loses it once a task has started: whether it was paused or cancelled nobody knows then."""
    workflow_id = host.submit(Task("a", "work.once"), Task("b", "work.once", after=("a",)))
    host.begin()
    host.ask(verb, workflow_id)
    host.work()
    before = host.ran()
    (host.root / "workflows" / workflow_id / "workflow.json").unlink()
    host.die()
    host.work()
    assert host.ran() == before
    assert not host.has(workflow_id, "workflow.json")
    assert host.orchestrator is not None
    assert "workflow.json is damaged" in str(host.orchestrator.errors[workflow_id])
    assert "no-checkpoint" in [problem.code for problem in check(host.root)]


def test_a_request_that_ends_with_an_error_is_not_carried_out_later(host: Host) -> None:
    workflow_id, scratch = host.started()
    end(scratch)
    path = host.root / "workflows" / workflow_id / "tasks" / "a.json"
    kept = path.read_bytes()
    path.write_bytes(b"{}\n")
    with pytest.raises(Damaged):
        host.ask("cancel", workflow_id)
    assert host.person.requests_of(workflow_id) == []
    path.write_bytes(kept)
    host.work()
    assert host.state(workflow_id) != "cancelled"


def test_a_request_that_was_applied_before_something_failed_was_asked(host: Host) -> None:
    workflow_id, scratch = host.started()
    end(scratch)

    def spoil() -> None:
        raise OSError(errno.EIO, "bad sector")

    host.between("remove", f"/{workflow_id}.*.json", spoil, after=True)
    host.ask("cancel", workflow_id)
    host.work()
    assert host.state(workflow_id) == "cancelled"


@pytest.mark.timeout(20)
def test_a_damaged_claim_after_a_rest_is_left_for_a_while(host: Host) -> None:
    """And is not offered again in the same tick, for ever."""
    workflow_id = host.submit()

    def full() -> None:
        raise OSError(errno.ENOSPC, "full")

    host.between("write_atomic", "/plan.json", full)
    orchestrator = host.begin()
    (host.person.incoming / workflow_id / "manifest.json").write_bytes(b"{")
    host.passed_seconds += 1.5
    orchestrator.tick()
    due = orchestrator.next_start()
    assert due is None or due > host.instant().boottime + 30.0
