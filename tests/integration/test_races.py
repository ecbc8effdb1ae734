"""Every pair that may write about one thing at once, in the order that would do harm; each test's name says both.

One party stands still at the critical place while the other does all that it can:

* a worker whose orchestrator died, and the successor: before the worker locks its log, before it reads the checkpoint
  again, before and after it links its outcome; and before the successor locks the log to call the attempt interrupted
* a cancel and a success, whichever comes first
* two recoveries of one workflow, with and without an outcome that nobody has seen; so a drain beside an orchestrator
* a claim and another, before the lock and under it
* a request and whoever lets the workflow go at that instant; an asker who meets an error, and whoever applies it
* a cleanup and who takes the lock, who asks for a retry, who reads

Elsewhere: a request applied and not removed, and all that a crash can leave (`tests/crash/test_table_*.py`); one id
submitted by two (`tests/unit/test_spool.py`); the sweep and a worker making its folder (`tests/unit/test_scratch.py`);
a stopped worker of a dead orchestrator, as a real process (`test_recovery.py`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioning.clock import new_ulid, now
from provisioning.core.states import TaskState
from provisioning.core.workflow import FORMAT, Request, Retry, Task
from provisioning.errors import NotFound, SpoolUnusable
from provisioning.storage import reading
from provisioning.storage.spool import Spool
from provisioning.views.status import workflow_status
from tests.crash.hands import end
from tests.crash.host import Crash, Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path, monkeypatch)
    yield made
    made.close()


def crash() -> None:
    raise Crash


# A worker of a dead orchestrator, and the successor


def late(host: Host, step: str, path: str, *, after: bool = False, ticks: int | None) -> str:
    """A worker stands still at that step; its orchestrator dies, a successor works; then the worker goes on."""
    workflow_id = host.submit()

    def meanwhile() -> None:
        host.let_go()
        host.other(ticks)
        host.between("start", "", crash, after=True)  # the orchestrator is dead: it hears nothing of it

    host.between(step, path, meanwhile, after=after)
    with pytest.raises(Crash):
        host.work()
    host.die()
    return workflow_id


def test_late_worker_before_it_locks_its_log_against_its_successor(host: Host) -> None:
    workflow_id = late(host, "open_log", "/a.1.log", ticks=None)
    assert (host.state(workflow_id), host.ran()) == ("succeeded", ["a.2"])
    host.recover()
    assert (host.outcomes(workflow_id), host.ran()) == (["succeeded"], ["a.2"])
    assert not host.has(workflow_id, "outcomes/a.1.json")


def test_late_worker_before_it_reads_the_checkpoint_again_against_its_successor(host: Host) -> None:
    workflow_id = late(host, "read_regular", "/tasks/a.json", ticks=3)
    assert host.task(workflow_id).state is TaskState.RUNNING, "it was adopted"
    host.recover()
    assert (host.outcomes(workflow_id), host.ran()) == (["succeeded"], ["a.1"])


def test_late_worker_before_it_links_its_outcome_against_its_successor(host: Host) -> None:
    workflow_id = late(host, "publish", "/a.1.json", ticks=3)
    assert host.task(workflow_id).state is TaskState.RUNNING, "it was adopted"
    host.recover()
    assert (host.outcomes(workflow_id), host.ran()) == (["succeeded"], ["a.1"])


def test_late_worker_after_it_linked_its_outcome_against_its_successor(host: Host) -> None:
    workflow_id = late(host, "publish", "/a.1.json", after=True, ticks=None)
    assert host.state(workflow_id) == "succeeded", "taken while the worker still has the log"
    host.recover()
    assert (host.outcomes(workflow_id), host.ran()) == (["succeeded"], ["a.1"])


def test_successor_before_it_locks_the_log_against_a_worker_that_does(host: Host) -> None:
    workflow_id, scratch = host.started()
    logs: list[int] = []
    host.between("open_log_to_lock", "/a.1.log", lambda: logs.append(host.log(workflow_id)))
    host.begin()
    assert logs, "it was about to call the attempt interrupted"
    assert host.task(workflow_id).state is TaskState.RUNNING
    host.publish(workflow_id, scratch)
    os.close(logs[0])
    scratch.close()
    host.work()
    assert (host.outcomes(workflow_id), host.ran()) == (["succeeded"], [])


def test_successor_before_it_locks_the_log_against_a_worker_that_ends(host: Host) -> None:
    workflow_id, scratch = host.started()
    os.close(host.log(workflow_id))

    def ends() -> None:
        host.publish(workflow_id, scratch)
        end(scratch)

    host.between("open_log_to_lock", "/a.1.log", ends)
    host.recover()
    assert (host.outcomes(workflow_id), host.ran()) == (["succeeded"], [])


# Cancel and success


def ask_only(host: Host, verb: str, workflow_id: str) -> None:
    """The request is written, and its asker stands still."""
    host.person.request(Request(FORMAT, new_ulid(), workflow_id, verb, "alice", now()))


def test_success_before_cancel(host: Host) -> None:
    workflow_id = host.submit(Task("a", "work.once"), Task("b", "work.once", depends_on=("a",)))
    host.between("publish", "/a.1.json", lambda: ask_only(host, "cancel", workflow_id), after=True)
    host.recover()
    assert (host.outcomes(workflow_id), host.ran()) == (["succeeded"], ["a.1"])
    assert host.state(workflow_id) == "cancelled"
    host.ask("retry", workflow_id)
    host.recover()
    assert (host.state(workflow_id), host.ran()) == ("succeeded", ["a.1", "b.1"])


def test_cancel_before_success(host: Host) -> None:
    """The worker has told the operation to end; the operation ends with its work done."""
    host.cancels = True
    workflow_id = host.submit(Task("a", "work.stubborn"))
    host.between("publish", "/a.1.json", lambda: ask_only(host, "cancel", workflow_id))
    host.recover()
    assert (host.outcomes(workflow_id), host.ran()) == (["succeeded"], ["a.1"])
    assert str(host.task(workflow_id).state) == "succeeded", "work that was done is not called cancelled"


# Two recoveries, two claims


def test_recovery_that_has_the_lock_against_another(host: Host) -> None:
    workflow_id = host.submit()
    host.crash("write_atomic", "/tasks/a.json")
    host.between("read_regular", "/plan.json", host.other)
    host.recover()
    assert (host.state(workflow_id), host.ran()) == ("succeeded", ["a.1"])


def test_recovery_before_it_has_the_lock_against_another_that_ends_the_workflow(host: Host) -> None:
    workflow_id = host.submit()
    host.crash("write_atomic", "/tasks/a.json")
    seen: list[str] = []

    def whole() -> None:
        host.other()
        seen.append(host.state(workflow_id))

    host.between("open_lock", f"/{workflow_id}/lock", whole)
    host.recover()
    assert (seen, host.ran()) == (["succeeded"], ["a.1"])
    assert [event["state"] for event in host.folder(workflow_id).events() if event["event"] == "workflow"] == seen


def test_drain_with_the_orphan_s_outcome_in_hand_against_the_orchestrator(host: Host) -> None:
    workflow_id = host.submit(Task("a", "work.once"), Task("b", "work.once", depends_on=("a",)))
    host.crash("publish", "/a.1.json", after=True)
    host.between("write_atomic", "/tasks/a.json", host.other)  # it has read the outcome and not recorded it
    host.recover()
    assert (host.state(workflow_id), host.ran()) == ("succeeded", ["a.1", "b.1"])
    records = [each for each in host.folder(workflow_id).events() if each.get("task_id") == "a"]
    assert [each["state"] for each in records] == ["running", "succeeded"]


def test_claimer_before_it_has_the_lock_against_another_that_ends_the_workflow(host: Host) -> None:
    workflow_id = host.submit()
    host.between("open_lock", "/lock", host.other)
    host.recover()
    assert (host.state(workflow_id), host.ran()) == ("succeeded", ["a.1"])
    assert reading.list_names(host.person.incoming) == []


@pytest.mark.parametrize(
    ("step", "path"), [("read_regular", "/manifest.json"), ("write_atomic", "/plan.json"), ("move", "/workflows/*")]
)
def test_claimer_that_has_the_lock_against_another(host: Host, step: str, path: str) -> None:
    workflow_id = host.submit()
    host.between(step, path, lambda: host.other(ticks=3))
    host.recover()
    assert (host.state(workflow_id), host.outcomes(workflow_id), host.ran()) == ("succeeded", ["succeeded"], ["a.1"])
    assert reading.list_names(host.person.incoming) == []


# Requests


def test_request_before_the_holder_lets_go(host: Host) -> None:
    """The asker finds the lock held, and the holder has looked for requests already: it must look again."""
    workflow_id = host.submit(Task("a", "work.fail", retry=Retry(max_attempts=2)))
    holder = host.begin()
    holder.tick()
    assert host.task(workflow_id).backoff is not None
    ask_only(host, "pause", workflow_id)
    host.between("remove", f"/requests/{workflow_id}.*", lambda: host.ask("resume", workflow_id), after=True)
    holder.tick()
    assert [each.verb for each in host.workflow(workflow_id).applied] == ["pause"], "the asker found the lock held"
    lock = host.person.lock(workflow_id)
    assert lock is not None, "and the holder has let it go"
    lock.release()
    host.work()
    assert [each.verb for each in host.workflow(workflow_id).applied] == ["pause", "resume"]
    assert host.outcomes(workflow_id) == ["failed", "failed"]


def test_request_after_the_holder_let_go(host: Host) -> None:
    """The asker finds the lock free before the holder has looked again: it applies the request, once."""
    workflow_id = host.ended(Task("a", "work.fail"))
    ask_only(host, "retry", workflow_id)
    host.between("remove", f"/requests/{workflow_id}.*", lambda: host.ask("cancel", workflow_id), after=True)
    host.recover()
    assert [each.verb for each in host.workflow(workflow_id).applied] == ["retry", "cancel"]
    assert (host.state(workflow_id), host.ran()) == ("cancelled", ["a.1"])


def failing_asker(host: Host, workflow_id: str, another: Callable[[], object]) -> None:
    """Ask for a pause; another process does what it can, then the asker's own fails in applying it, once."""

    def meanwhile() -> None:
        another()
        raise OSError(errno.EMFILE, "Too many open files")

    host.between("open_lock", f"/{workflow_id}/lock", meanwhile)
    host.ask("pause", workflow_id)


def test_asker_that_fails_against_a_successor_that_has_applied_it(host: Host) -> None:
    """What was applied is not told as an error, although its file is still there."""
    workflow_id = host.submit(Task("a", "work.fail", retry=Retry(max_attempts=2)))
    host.begin().tick()
    host.die()
    failing_asker(host, workflow_id, lambda: host.crash("remove", f"/requests/{workflow_id}.*"))
    assert [each.verb for each in host.workflow(workflow_id).applied] == ["pause"]
    host.recover()
    assert (host.state(workflow_id), list(host.person.pending_requests())) == ("paused", [])
    assert [each.verb for each in host.workflow(workflow_id).applied] == ["pause"]


def test_asker_that_fails_against_a_holder_that_may_be_about_to_apply_it(host: Host) -> None:
    """The holder may have read it already: to take its file away would take back nothing."""
    workflow_id = host.submit(Task("a", "work.fail", retry=Retry(max_attempts=2)))
    holder = host.begin()
    holder.tick()
    failing_asker(host, workflow_id, lambda: None)
    assert [request.verb for _, request in host.person.pending_requests()] == ["pause"]
    holder.tick()
    assert (host.state(workflow_id), list(host.person.pending_requests())) == ("paused", [])


def test_asker_that_fails_while_nobody_holds_it(host: Host) -> None:
    workflow_id = host.submit(Task("a", "work.fail", retry=Retry(max_attempts=2)))
    host.begin().tick()
    host.die()
    with pytest.raises(SpoolUnusable, match="Too many open files"):
        failing_asker(host, workflow_id, lambda: None)
    assert list(host.person.pending_requests()) == []
    host.recover()
    assert (host.state(workflow_id), host.workflow(workflow_id).applied) == ("failed", ())


# Cleanup


def test_cleanup_before_the_rename_against_a_lock_taker(host: Host) -> None:
    workflow_id = host.ended()
    got: list[object] = []
    host.between("move", "/tmp/*", lambda: got.append(Spool.open(host.root).lock(workflow_id)))
    assert host.clean() == [workflow_id]
    assert got == [None]


@pytest.mark.parametrize("after", [False, True])
def test_lock_taker_before_it_locks_against_a_cleanup(host: Host, after: bool) -> None:
    workflow_id = host.ended()
    host.between("open_lock", f"/{workflow_id}/lock", host.clean, after=after)
    assert Spool.open(host.root).lock(workflow_id) is None
    assert host.person.workflow_ids() == [], "and it was not made anew"


def test_cleanup_before_the_rename_against_a_retry(host: Host) -> None:
    """Whoever asks a moment too late asks nobody; nothing of it stays."""
    workflow_id = host.ended(Task("a", "work.fail"))
    host.between("move", "/tmp/*", lambda: ask_only(host, "retry", workflow_id))
    assert host.clean() == [workflow_id]
    host.recover()
    assert (host.person.workflow_ids(), list(host.person.pending_requests())) == ([], [])
    assert host.ran() == ["a.1"]


def test_retry_before_the_cleanup_looks_for_requests(host: Host) -> None:
    workflow_id = host.ended(Task("a", "work.fail"))
    host.between("open_lock", f"/{workflow_id}/lock", lambda: ask_only(host, "retry", workflow_id))
    assert host.clean() == []
    host.recover()
    assert host.ran() == ["a.1", "a.2"]


@pytest.mark.parametrize("path", ["/submission.json", "/plan.json", "/workflow.json", "/tasks/a.json", "/a.1.json"])
@pytest.mark.parametrize("after", [False, True])
def test_reader_against_a_cleanup(host: Host, path: str, after: bool) -> None:
    """What is read is of the workflow as it was, or the workflow is not found: nothing is called damaged."""
    workflow_id = host.ended()
    folder = Spool.open(host.root).find(workflow_id)
    removed: list[str] = []
    host.between("read_regular", path, lambda: removed.extend(host.clean()), after=after)
    try:
        page = workflow_status(folder)
    except (NotFound, FileNotFoundError):
        page = None
    assert page is None or page["workflow_id"] == workflow_id
    assert host.person.workflow_ids() == [each for each in [workflow_id] if each not in removed]
