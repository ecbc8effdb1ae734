"""Rows of the crash table: attempts, and the workflow around them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec
import pytest

from provisioning.core.identifiers import Process
from provisioning.core.states import TaskState, WorkflowState
from provisioning.core.workflow import Retry, Task
from provisioning.processes import identity, is_alive
from provisioning.storage.checkpoint import encode
from tests.crash.hands import end
from tests.crash.host import Crash, Host

# Attempts


def crash() -> None:
    raise Crash


def orphan_with(log: int | None) -> Process:
    """A process in a group of its own that would live for a minute, with the log in its hands."""
    if log is not None:
        os.set_inheritable(log, True)
    found = identity(os.posix_spawn("/bin/sleep", ["sleep", "60"], {}, setpgroup=0))
    assert found is not None
    return found


def is_gone(process: Process) -> bool:
    """Whether it has ended; whoever comes to it first reaps it."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    return not is_alive(process)


def test_started_without_log(host: Host) -> None:
    workflow_id, scratch = host.started()
    end(scratch)
    host.recover()
    assert host.ran() == ["a.2"]
    assert host.outcomes(workflow_id) == ["succeeded"], "the attempt that never began counts for nothing"


def test_log_without_outcome(host: Host) -> None:
    once, again = host.submit(Task("a", "work.once")), host.submit(Task("a", "work.again"))
    for workflow_id in (once, again):
        host.crash("make", "*")
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
    host.crash("publish", "/a.1.json")
    assert host.ran() == ["a.1"]
    assert not host.has(workflow_id, "outcomes/a.1.json")
    host.recover()
    assert (host.outcomes(workflow_id), host.ran()) == (["interrupted", "succeeded"], ["a.1", "a.2"])


def test_outcome_without_news(host: Host) -> None:
    for operation, outcome in (("work.once", "succeeded"), ("work.fail", "failed")):
        workflow_id = host.submit(Task("a", operation))
        host.crash("publish", "/a.1.json", after=True)
        assert host.task(workflow_id).state is TaskState.RUNNING
        host.recover()
        assert host.outcomes(workflow_id) == [outcome]
    assert host.ran() == ["a.1", "a.1"]


@pytest.mark.parametrize("number", [1, 3])
def test_outcome_without_start(host: Host, number: int) -> None:
    """The outcome was synced and the checkpoint was not, and the power was cut.

    If there were attempts before it that were interrupted, which leaves no outcome, their records were lost as well.
    """
    workflow_id = host.ended(Task("a", "work.again"), Task("b", "work.again", depends_on=("a",)))
    folder = host.folder(workflow_id).path
    record = host.folder(workflow_id).outcome("a", 1)
    assert record is not None
    for name in ("outcomes/a.1.json", "logs/a.1.log", "tasks/a.json", "tasks/b.json"):
        (folder / name).unlink()
    (folder / "outcomes" / f"a.{number}.json").write_bytes(encode(msgspec.structs.replace(record, attempt=number)))
    running = msgspec.structs.replace(host.workflow(workflow_id), state=WorkflowState.RUNNING, ended_at=None)
    (folder / "workflow.json").write_bytes(encode(running))
    host.power_cut()
    host.recover()
    assert (host.state(workflow_id), host.outcomes(workflow_id)) == ("succeeded", ["succeeded"])
    assert host.task(workflow_id).attempts[-1].number == number
    assert host.ran() == ["a.1", "b.1"], "what has an outcome is not done again"


def two_attempts(host: Host, *, ended: bool) -> tuple[Path, bytes]:
    """The power is cut in, or right after, the second attempt of a task; its checkpoint, and what that was before."""
    workflow_id = host.submit(Task("a", "work.fail", retry=Retry(max_attempts=2)), Task("b", "work.once"))
    path = host.folder(workflow_id).path / "tasks" / "a.json"
    first: list[bytes] = []

    def second() -> None:
        first.append(path.read_bytes())
        host.between("publish", "/a.2.json", crash, after=ended)

    host.between("publish", "/a.1.json", second)
    with pytest.raises(Crash):
        host.work()
    host.power_cut()
    return path, first[0]


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("left", [None, b"", b'{"format":1,"task_id":"a","state":"runn', bytes(40)])
def test_checkpoint_cut_off(host: Host, left: bytes | None, ended: bool) -> None:
    """Not that of the second attempt, which is synced: of its name a power cut may have taken all. Or nothing is."""
    path, whole = two_attempts(host, ended=ended)
    path.write_bytes(whole if left is None else left)
    host.recover()
    workflow_id = path.parent.parent.name
    assert host.state(workflow_id) == "failed"
    known = left is None or ended
    assert host.outcomes(workflow_id) == (["failed", "failed"] if known else ["failed", "interrupted", "failed"])
    assert host.ran().count("b.1") == 1


def test_outcome_with_leftovers(host: Host) -> None:
    workflow_id, scratch = host.started()
    log = host.log(workflow_id)
    host.publish(workflow_id, scratch)
    left = orphan_with(log)
    os.close(log)
    end(scratch)
    host.recover()
    assert (host.outcomes(workflow_id), host.ran()) == (["succeeded"], [])
    assert is_gone(left)


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
    orphan = orphan_with(log)
    os.close(log)
    end(scratch)
    host.recover()
    assert is_gone(orphan)
    assert (host.outcomes(workflow_id), host.ran()) == (["interrupted", "succeeded"], ["a.2"])


def test_orphans_without_log(host: Host) -> None:
    workflow_id, scratch = host.started("work.again")
    os.close(host.log(workflow_id))
    orphan = orphan_with(None)
    (scratch.path / "group").write_bytes(encode(orphan))
    end(scratch)
    host.begin()
    assert host.task(workflow_id).state is TaskState.RUNNING, "while it lives the task is not made again"
    host.work()
    assert is_gone(orphan)
    assert (host.outcomes(workflow_id), host.ran()) == (["interrupted", "succeeded"], ["a.2"])


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
