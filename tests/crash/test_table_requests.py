"""Rows of the crash table: requests, cleanups, and damaged files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from provisioning.clock import new_ulid, now
from provisioning.core.workflow import FORMAT, Request, Task
from provisioning.storage import reading
from provisioning.storage.check import check
from tests.crash.hands import end
from tests.crash.host import Host

# Requests


def paused(host: Host) -> str:
    """A workflow that is paused before its first task."""
    workflow_id = host.submit()
    host.ask("pause", workflow_id)
    assert host.state(workflow_id) == "paused"
    return workflow_id


def put(host: Host, verb: str, workflow_id: str, *tasks: str) -> Callable[[], Path]:
    """Leaves the request, and applies nothing."""
    asked = Request(FORMAT, new_ulid(), workflow_id, verb, "alice", now(), tasks)
    return lambda: host.person.request(asked)


def test_request_not_applied(host: Host) -> None:
    cancelled, resumed = paused(host), paused(host)
    failed = host.ended(Task("a", "work.fail"))
    for verb, workflow_id in (("cancel", cancelled), ("resume", resumed), ("retry", failed), ("pause", host.submit())):
        host.crash("write_atomic", "/requests/*", after=True, of=put(host, verb, workflow_id))
    host.recover()
    assert [host.state(each) for each in (cancelled, resumed, failed)] == ["cancelled", "succeeded", "failed"]
    assert host.outcomes(failed) == ["failed", "failed"]
    assert sorted(map(host.state, host.person.claimed_ids())) == ["cancelled", "failed", "paused", "succeeded"]
    assert list(host.person.pending_requests()) == []


def test_request_applied_not_removed(host: Host) -> None:
    cancelled, resumed = paused(host), paused(host)
    failed, held = host.ended(Task("a", "work.fail")), host.submit()
    for verb, workflow_id in (("cancel", cancelled), ("resume", resumed), ("retry", failed), ("pause", held)):
        host.crash("remove", f"/requests/{workflow_id}*", of=lambda v=verb, w=workflow_id: host.ask(v, w))  # type: ignore[misc]
        assert [each.verb for each in host.workflow(workflow_id).applied][-1] == verb
    host.recover()
    for workflow_id, times in ((cancelled, 2), (resumed, 2), (failed, 1), (held, 1)):
        assert len(host.workflow(workflow_id).applied) == times
    assert [host.state(each) for each in (cancelled, resumed, failed, held)] == [
        "cancelled",
        "succeeded",
        "failed",
        "paused",
    ]
    assert host.outcomes(failed) == ["failed", "failed"]


def test_request_of_nobody(host: Host) -> None:
    host.operations.pop("work.fail")
    workflow_id = host.submit(Task("a", "work.fail"))
    put(host, "cancel", workflow_id)()
    put(host, "cancel", new_ulid())()
    host.recover()
    host.recover()
    assert host.person.workflow_ids() == []
    assert list(host.person.pending_requests()) == []


def test_retry_half_way(host: Host) -> None:
    workflow_id = host.ended(Task("a", "work.fail"), Task("b", "work.fail"))
    host.crash("write_atomic", "/tasks/b.json", of=lambda: host.ask("retry", workflow_id))
    states = [str(host.task(workflow_id, task).state) for task in ("a", "b")]
    assert (host.state(workflow_id), states) == ("failed", ["pending", "failed"])
    host.recover()
    assert [host.outcomes(workflow_id, task) for task in ("a", "b")] == [["failed", "failed"]] * 2
    assert [each.verb for each in host.workflow(workflow_id).applied] == ["retry"]


def test_cancel_half_way(host: Host) -> None:
    workflow_id, scratch = host.started()
    log = host.log(workflow_id)
    put(host, "cancel", workflow_id)()
    host.crash("remove", "/requests/*")
    assert (host.state(workflow_id), host.workflow(workflow_id).cancelling) == ("running", True)
    os.close(log)
    end(scratch)
    host.recover()
    assert (host.state(workflow_id), host.ran()) == ("cancelled", [])


def test_cancel_half_way_of_a_paused_workflow(host: Host) -> None:
    workflow_id = paused(host)
    host.crash("remove", "/requests/*", after=True, of=lambda: host.ask("cancel", workflow_id))
    assert (host.state(workflow_id), host.workflow(workflow_id).cancelling) == ("paused", True)
    assert host.person.requests_of(workflow_id) == []
    host.recover()
    assert host.state(workflow_id) == "cancelled"


def test_request_after_the_end(host: Host) -> None:
    workflow_id = host.ended()
    for verb in ("cancel", "pause", "resume"):
        put(host, verb, workflow_id)()
    host.recover()
    assert (host.state(workflow_id), host.ran()) == ("succeeded", ["a.1"])
    put(host, "retry", workflow_id, "a")()
    host.recover()
    assert host.ran() == ["a.1", "a.2"]


# Cleanup


def test_cleaned_and_still_there(host: Host) -> None:
    workflow_id = host.submit(id="mine")
    host.recover()
    host.crash("move", "/tmp/*", of=host.clean)
    assert f"{workflow_id}.cleaned" in reading.list_names(host.person.ids)
    host.recover()
    assert host.submit(id="mine") == workflow_id
    host.ask("retry", workflow_id, "a")
    host.recover()
    assert host.ran() == ["a.1", "a.2"], "it can still be asked for more"
    assert host.clean() == [workflow_id]
    assert host.submit(id="mine") == workflow_id
    assert host.person.workflow_ids() == []


def test_cleaned_half_way(host: Host) -> None:
    workflow_id = host.submit(id="mine")
    host.recover()
    host.crash("remove", "/tmp/*", of=host.clean)
    assert host.person.workflow_ids() == []
    assert any(host.person.tmp.glob("*/tasks"))
    host.recover()
    assert not any(host.person.tmp.glob("*/tasks"))
    assert host.submit(id="mine") == workflow_id


# Damage


def test_damaged_file(host: Host) -> None:
    workflow_id = paused(host)
    path = host.folder(workflow_id).path / "workflow.json"
    path.write_bytes(path.read_bytes()[:20])
    other = host.submit()
    host.begin()
    host.work()
    assert host.state(other) == "succeeded"
    assert [(problem.code, problem.file) for problem in check(host.root)] == [("damaged", str(path))]
    assert len(path.read_bytes()) == 20


def test_damaged_request(host: Host) -> None:
    workflow_id = paused(host)
    asked = put(host, "resume", workflow_id)()
    whole = asked.read_bytes()
    newer = host.person.requests / f"{workflow_id}.{new_ulid()}.json"
    newer.write_bytes(whole.replace(b'"format":1', b'"format":2').replace(b'"verb"', b'"deed"'))
    asked.write_bytes(whole[:30])
    host.begin()
    host.work()
    assert host.state(workflow_id) == "paused"
    (rejected,) = reading.list_names(host.person.rejected)
    assert rejected.endswith(asked.name)
    assert reading.list_names(host.person.requests) == [newer.name]
