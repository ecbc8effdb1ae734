"""Each row of "What a crash can leave" in spool/README.md: that state is made, recovered, and is as the row says.

A test has the name of its row. Where a crash is named, the program's own code has written all that is there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from provisioning.clock import new_ulid, now
from provisioning.core.identifiers import Process
from provisioning.core.states import TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, Request, Retry, Task
from provisioning.errors import SpoolUnusable
from provisioning.orchestrator.requests import cleanup
from provisioning.processes import own_identity
from provisioning.storage import files
from provisioning.storage.check import check
from provisioning.storage.checkpoint import encode
from provisioning.storage.spool import OrchestratorRecord, Spool
from tests.crash.host import Host, end

README = Path(__file__).parents[2] / "spool" / "README.md"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path, monkeypatch)
    yield made
    made.close()


def rows() -> list[str]:
    """The names of the rows, from the first column of the table."""
    text = README.read_text(encoding="utf-8").partition("## What a crash can leave")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)


def test_every_row_has_its_test_and_every_test_its_row() -> None:
    tested = [name for name in globals() if name.startswith("test_")]
    tested.remove("test_every_row_has_its_test_and_every_test_its_row")
    assert len(rows()) == len(set(rows())) > 30
    assert sorted(tested) == sorted(f"test_{row.replace('-', '_')}" for row in rows())


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
    (left,) = files.list_names(host.person.tmp)
    assert sorted(os.listdir(host.person.tmp / left / "1")) == ["manifest.json", "submission.json"]
    (host.person.tmp / new_ulid()).mkdir()  # made, and not locked yet
    host.recover()
    assert host.person.workflow_ids() == []


def test_operations_without_plan(host: Host) -> None:
    workflow_id = host.submit()
    host.crash("write_atomic", "/plan.json")
    assert files.list_names(host.person.nulib) == ["d" * 64]
    assert files.list_names(host.person.incoming / workflow_id) != ["plan.json"]
    host.recover()
    assert (host.state(workflow_id), host.ran()) == ("succeeded", ["a.1"])


def test_orchestrator_record_of_the_dead(host: Host) -> None:
    me = own_identity()
    strangers = [Process(me.boot_id, me.pid, me.starttime + 1), Process("another boot", me.pid, me.starttime)]
    for stranger in strangers:
        host.person.save_orchestrator_record(OrchestratorRecord(FORMAT, stranger, "host", now(), "0", 1))
        assert host.person.running_orchestrator() is None
    lock = host.person.take_orchestrator_lock()
    host.recover()
    lock.release()


# Submission


def test_id_without_workflow(host: Host) -> None:
    host.crash("move", "/incoming/*", of=lambda: host.submit(id="mine"))
    assert files.list_names(host.person.ids) == ["mine.json"]
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
    host.operations["work.fail"] = kept
    host.recover()
    assert (host.state(again), host.has(again, "reason.json")) == ("failed", False)
    never = host.submit(Task("a", "work.gone"))
    host.crash("move", f"/rejected/*{never}")
    host.recover()
    (rejected,) = files.list_names(host.person.rejected)
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


# Attempts


def test_started_without_log(host: Host) -> None:
    workflow_id, scratch = host.started()
    end(scratch)
    host.recover()
    assert host.ran() == ["a.2"]
    assert host.outcomes(workflow_id) == ["succeeded"], "the attempt that never began counts for nothing"


def test_log_without_outcome(host: Host) -> None:
    once, again = host.submit(Task("a", "work.once")), host.submit(Task("a", "work.again"))
    for workflow_id in (once, again):
        host.crash("room", "*")
        assert host.has(workflow_id, "logs/a.1.log")
        host.die()
    host.recover()
    assert (host.state(once), host.outcomes(once)) == ("paused", ["interrupted"])
    assert host.task(once).held
    assert (host.state(again), host.outcomes(again)) == ("succeeded", ["interrupted", "succeeded"])
    host.ask("retry", once, "a")
    host.recover()
    assert host.state(once) == "succeeded"


def test_room_without_outcome(host: Host) -> None:
    workflow_id = host.submit(Task("a", "work.again"))
    host.crash("publish", "a.1.json")
    assert host.ran() == ["a.1"]
    assert not host.has(workflow_id, "outcomes/a.1.json")
    host.recover()
    assert (host.outcomes(workflow_id), host.ran()) == (["interrupted", "succeeded"], ["a.1", "a.2"])


def test_outcome_without_news(host: Host) -> None:
    for operation, outcome in (("work.once", "succeeded"), ("work.fail", "failed")):
        workflow_id = host.submit(Task("a", operation))
        host.crash("publish", "a.1.json", after=True)
        assert host.task(workflow_id).state is TaskState.RUNNING
        host.recover()
        assert host.outcomes(workflow_id) == [outcome]
    assert host.ran() == ["a.1", "a.1"]


def test_outcome_without_start(host: Host) -> None:
    """The outcome was synced and the checkpoint was not, and the power was cut."""
    workflow_id = host.ended(Task("a", "work.again"), Task("b", "work.again", depends_on=("a",)))
    folder = host.folder(workflow_id).path
    (folder / "tasks" / "a.json").unlink()
    (folder / "tasks" / "b.json").unlink()
    running = msgspec.structs.replace(host.workflow(workflow_id), state=WorkflowState.RUNNING, ended_at=None)
    (folder / "workflow.json").write_bytes(encode(running))
    host.power_cut()
    host.recover()
    assert (host.state(workflow_id), host.outcomes(workflow_id)) == ("succeeded", ["succeeded"])
    assert host.ran() == ["a.1", "b.1"], "what has an outcome is not done again"


def test_outcome_with_leftovers(host: Host) -> None:
    workflow_id, scratch = host.started()
    log = host.log(workflow_id)
    host.publish(workflow_id, scratch)
    left = subprocess.Popen(["/bin/sleep", "60"], pass_fds=[log])
    os.close(log)
    end(scratch)
    host.recover()
    assert (host.outcomes(workflow_id), host.ran()) == (["succeeded"], [])
    assert left.wait(10) != 0


def test_worker_without_orchestrator(host: Host) -> None:
    workflow_id, scratch = host.started()
    log = host.log(workflow_id)
    host.begin().tick()
    assert host.task(workflow_id).state is TaskState.RUNNING
    host.publish(workflow_id, scratch)
    os.close(log)
    scratch.close()
    host.work()
    assert (host.state(workflow_id), host.outcomes(workflow_id), host.ran()) == ("succeeded", ["succeeded"], [])


def test_orphans(host: Host) -> None:
    workflow_id, scratch = host.started("work.again")
    log = host.log(workflow_id)
    orphan = subprocess.Popen(["/bin/sleep", "60"], pass_fds=[log])
    os.close(log)
    end(scratch)
    host.recover()
    orphan.wait(10)  # a worker of this process may have buried it
    assert (host.outcomes(workflow_id), host.ran()) == (["interrupted", "succeeded"], ["a.2"])


def test_orphans_without_log(host: Host) -> None:
    workflow_id, scratch = host.started("work.again")
    os.close(host.log(workflow_id))
    orphan = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, process_group=0)
    try:
        leader = own_identity_of(orphan.pid)
        (scratch.path / "group").write_bytes(encode(leader))
        worker = msgspec.structs.replace(own_identity_of(os.getpid()), pid=os.getsid(0))  # whose session it is
        (scratch.path / "process").write_bytes(encode(worker))
        end(scratch)
        host.begin()
        assert host.task(workflow_id).state is TaskState.RUNNING, "while they live it is not made again"
        assert orphan.wait(10) != 0
        host.work()
    finally:
        orphan.kill()
        orphan.communicate()
    assert (host.outcomes(workflow_id), host.ran()) == (["interrupted", "succeeded"], ["a.2"])


def own_identity_of(pid: int) -> Process:
    from provisioning.processes import identity

    found = identity(pid)
    assert found is not None
    return found


def test_running_in_another_boot(host: Host) -> None:
    workflow_id, scratch = host.started("work.again")
    end(scratch)
    host.power_cut()
    host.recover()
    assert (host.outcomes(workflow_id), host.ran()) == (["interrupted", "succeeded"], ["a.2"])
    assert host.workflow(workflow_id).host_crashed


def test_interruption_without_pause(host: Host) -> None:
    workflow_id, scratch = host.started()
    os.close(host.log(workflow_id))
    end(scratch)
    host.begin()
    running = msgspec.structs.replace(host.workflow(workflow_id), state=WorkflowState.RUNNING, reason="")
    host.die()
    (host.folder(workflow_id).path / "workflow.json").write_bytes(encode(running))
    host.recover()
    assert (host.state(workflow_id), host.outcomes(workflow_id)) == ("paused", ["interrupted"])
    assert host.workflow(workflow_id).reason == "waiting for a person: task a"


def test_backoff(host: Host) -> None:
    retry = Retry(max_attempts=2, initial_delay_seconds=100.0)
    for another_boot in (False, True):
        workflow_id = host.submit(Task("a", "work.fail", retry=retry))
        host.begin().tick()
        host.orchestrator.tick()  # type: ignore[union-attr]
        assert host.task(workflow_id).backoff is not None
        if another_boot:
            host.power_cut()
        host.die()
        due = host.begin().next_start()
        assert due is not None
        assert 90 < due - host.instant().boottime < 101
        host.die()
        host.recover()
        assert host.outcomes(workflow_id) == ["failed", "failed"]


def test_ended_tasks_without_end(host: Host) -> None:
    """The dependents of what failed have no file: that they are skipped follows."""
    workflow_id = host.submit(Task("a", "work.fail"), Task("b", "work.once", depends_on=("a",)))
    host.crash("write_atomic", "/workflow.json", after=True)  # the claim's
    crash_at_end(host, workflow_id)
    assert (host.state(workflow_id), str(host.task(workflow_id).state)) == ("running", "failed")
    assert not host.has(workflow_id, "tasks/b.json")
    host.recover()
    assert (host.state(workflow_id), host.ran()) == ("failed", ["a.1"])


def crash_at_end(host: Host, workflow_id: str) -> None:
    """Work until the workflow's end is to be recorded."""
    orchestrator = host.begin()
    while str(host.task(workflow_id).state) not in ("failed", "succeeded"):
        orchestrator._now = host.instant()
        orchestrator._take_news()
        orchestrator._start()
    host.die()


def test_end_without_letting_go(host: Host) -> None:
    workflow_id = host.submit()
    host.begin()
    while host.state(workflow_id) != "succeeded":
        host.orchestrator.tick()  # type: ignore[union-attr]
    host.die()
    before = host.folder(workflow_id).path.joinpath("workflow.json").stat().st_ino
    host.recover()
    assert host.folder(workflow_id).path.joinpath("workflow.json").stat().st_ino == before
    assert host.ran() == ["a.1"]


def test_events_cut_off(host: Host) -> None:
    workflow_id = host.ended(Task("a", "work.fail"))
    events = host.folder(workflow_id).path / "events.jsonl"
    whole = len(list(host.folder(workflow_id).events()))
    events.write_bytes(events.read_bytes()[:-9])
    host.ask("retry", workflow_id)
    host.recover()
    assert host.outcomes(workflow_id) == ["failed", "failed"]
    assert len(list(host.folder(workflow_id).events())) > whole


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


def clean(host: Host) -> list[str]:
    return cleanup(host.person, older_than_seconds=-1.0, dry_run=False)


def test_cleaned_and_still_there(host: Host) -> None:
    workflow_id = host.submit(id="mine")
    host.recover()
    host.crash("move", "/tmp/*", of=lambda: clean(host))
    assert f"{workflow_id}.cleaned" in files.list_names(host.person.ids)
    host.recover()
    assert host.submit(id="mine") == workflow_id
    host.ask("retry", workflow_id, "a")
    host.recover()
    assert host.ran() == ["a.1", "a.2"], "it can still be asked for more"
    assert clean(host) == [workflow_id]
    assert host.submit(id="mine") == workflow_id
    assert host.person.workflow_ids() == []


def test_cleaned_half_way(host: Host) -> None:
    workflow_id = host.submit(id="mine")
    host.recover()
    host.crash("remove_tree", "/tmp/*", of=lambda: clean(host))
    assert host.person.workflow_ids() == []
    assert any(host.person.tmp.glob("*/*/workflow.json"))
    host.recover()
    assert not any(host.person.tmp.glob("*/*/workflow.json"))
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
    (rejected,) = files.list_names(host.person.rejected)
    assert rejected.endswith(asked.name)
    assert files.list_names(host.person.requests) == [newer.name]
