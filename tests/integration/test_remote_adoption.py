"""What an executor of Slurm finds out about attempts that others have begun, where Slurm itself does not answer."""

from __future__ import annotations

import errno
import json
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from provisioning.clock import boottime, new_ulid
from provisioning.core.identifiers import LOCAL, SLURM, Executing
from provisioning.core.states import Outcome, TaskState
from provisioning.core.workflow import FORMAT, Attempt, OutcomeRecord, TaskCheckpoint
from provisioning.errors import SpoolUnusable
from provisioning.execution.executor import AttemptRequest, Key, News, Seen
from provisioning.execution.remote import order_of
from provisioning.execution.slurm.commands import Commands
from provisioning.execution.slurm.executor import Slurm
from provisioning.sections import Slurm as Settings
from provisioning.storage.checkpoint import WorkflowFolder, encode
from provisioning.storage.limits import Wanted
from provisioning.storage.shared import AttemptFolder, Shared
from provisioning.storage.waiting import WaitingViews, waiting_of
from provisioning.views.waiting import show_slurm
from tests.installation import Installation
from tests.simulation.values import EPOCH
from tests.waiting import wait_for

KEY = Key("01kc0000000000000000000001", "t", 1)
POLL_SECONDS = 0.05
STRANGER = "01kc0000000000000000000009"


class Adopting:
    """An executor without a cluster, the folder of an attempt, and the workflow that it is of."""

    def __init__(self, site: Installation, directory: Path) -> None:
        self.directory = directory
        self.into = WorkflowFolder(site.spool.workflows / KEY.workflow_id, site.spool.scratch)
        self.into.path.mkdir(mode=0o700)
        self.into.prepare()
        self.shared = Shared(site.spool, directory, site.spool.scratch)
        self.folder = self.shared.attempt(self.shared.name, *KEY)
        none = Path("/nonexistent")
        settings = Settings(directory=directory, commands=none, poll_seconds=POLL_SECONDS, lost_seconds=0.1)
        self.executor = Slurm(site.spool, settings)
        self._heard: list[News] = []

    def begin(self, folder: AttemptFolder | None = None) -> None:
        """Put an order there."""
        request = AttemptRequest(KEY, ("/nu", "/entry"), {}, {}, {}, None, None, 1.0, 1, 1)
        assert self.shared.begin(folder or self.folder, order_of(request, 1.0))

    def publish(self) -> None:
        """Put an outcome there as a node does, while it is looked for: at once and whole."""
        beside = self.folder.outcome.with_name("beside")
        beside.write_bytes(encode(record()))
        beside.replace(self.folder.outcome)

    def adopted(self, worker: str = "") -> News:
        """What the executor says of the attempt."""
        self.executor.adopt(KEY, worker or self.shared.name, ())
        return self.news()

    def news(self) -> News:
        """The first news."""
        return wait_for(self._listen, 20)

    def _listen(self) -> News:
        if select.select([self.executor.descriptor], [], [], 0.05)[0]:
            self._heard += self.executor.news()
        return self._heard.pop(0) if self._heard else None  # type: ignore[return-value]

    def close(self) -> None:
        self.executor.close()
        self.shared.close()


@pytest.fixture
def adopting(site: Installation, tmp_path: Path) -> Iterator[Adopting]:
    """In a directory of its own."""
    directory = tmp_path / "shared"
    directory.mkdir(mode=0o700)
    made = Adopting(site, directory)
    yield made
    made.close()


def record() -> OutcomeRecord:
    """That it has succeeded."""
    return OutcomeRecord(FORMAT, *KEY, Outcome.SUCCEEDED, EPOCH, EPOCH, 0, result="said")


def test_an_outcome_is_taken_with_its_log(adopting: Adopting) -> None:
    adopting.begin()
    adopting.folder.claim()
    adopting.folder.log.write_bytes(b"said\n")
    adopting.folder.outcome.write_bytes(encode(record()))
    news = adopting.adopted()
    assert (news.seen, news.record and news.record.result) == (Seen.ENDED, None)
    taken = adopting.into.outcome("t", 1)
    assert taken == record()
    assert adopting.into.log_path("t", 1).read_bytes() == b"said\n"
    wait_for(lambda: not adopting.folder.path.parent.exists(), what="the removal of what is no longer needed")


def test_an_outcome_that_was_taken_before_is_told_again(adopting: Adopting) -> None:
    adopting.into.outcome_path("t", 1).write_bytes(encode(record()))
    assert adopting.adopted().seen is Seen.ENDED


def test_the_outcome_of_another_attempt_is_none(adopting: Adopting) -> None:
    adopting.begin()
    adopting.folder.claim()
    other = json.loads(encode(record())) | {"attempt": 2}
    adopting.folder.outcome.write_text(json.dumps(other))
    news = adopting.adopted()
    assert (news.seen, "another attempt" in news.problem) == (Seen.LOST, True)
    assert adopting.into.outcome("t", 1) is None


def given_up(adopting: Adopting) -> None:
    adopting.begin()
    assert adopting.shared.give_up(adopting.folder)


def of_another_version(adopting: Adopting) -> None:
    adopting.begin()
    order = json.loads(adopting.folder.order.read_text())
    adopting.folder.order.write_text(json.dumps({**order, "version": "0.0.1"}))


def without_an_order(adopting: Adopting) -> None:
    adopting.folder.path.mkdir(parents=True)


def without_a_folder(adopting: Adopting) -> None:
    """A crash came between the record of the start and the order."""


@pytest.mark.parametrize("left", [given_up, of_another_version, without_an_order, without_a_folder])
def test_what_nobody_has_begun_never_will_be(adopting: Adopting, left: Callable[[Adopting], None]) -> None:
    left(adopting)
    assert adopting.adopted().seen is Seen.NOT_STARTED
    assert not adopting.folder.claim(), "whoever comes late finds it claimed"
    assert not adopting.folder.order.exists()


def test_one_that_waits_is_cancelled_without_slurm(adopting: Adopting) -> None:
    adopting.begin()
    adopting.executor.adopt(KEY, adopting.shared.name, ())
    wait_for(lambda: "does not answer" in waiting_of(adopting.into.path).get("t", ""), what="the reason")
    adopting.executor.cancel(KEY)
    assert adopting.news().seen is Seen.NOT_STARTED
    assert not adopting.folder.claim()


def test_one_that_runs_is_not_lost_while_slurm_does_not_answer(adopting: Adopting) -> None:
    adopting.begin()
    adopting.folder.claim()
    adopting.executor.adopt(KEY, adopting.shared.name, ())
    wait_for(lambda: "does not answer" in waiting_of(adopting.into.path).get("t", ""), what="the reason")
    adopting.executor.cancel(KEY)
    adopting.publish()
    news = adopting.news()
    assert news.seen is Seen.ENDED


def test_of_what_a_copy_has_the_original_keeps_all(adopting: Adopting) -> None:
    """The name in the checkpoint is another's: it is looked at and left, and is lost where nothing is there."""
    theirs = adopting.shared.attempt(STRANGER, *KEY)
    adopting.begin(theirs)
    theirs.claim()
    theirs.outcome.write_bytes(encode(record()))
    assert adopting.adopted(STRANGER).seen is Seen.ENDED
    assert theirs.outcome.exists()
    assert theirs.order.exists()


def test_what_is_nowhere_and_not_ours_is_lost(adopting: Adopting) -> None:
    assert adopting.adopted(STRANGER).seen is Seen.LOST
    assert not adopting.shared.attempt(STRANGER, *KEY).path.exists()


def test_nothing_follows_while_the_directory_is_away(adopting: Adopting) -> None:
    adopting.begin()
    adopting.folder.claim()
    adopting.directory.rename(adopting.directory.with_name("away"))
    adopting.directory.mkdir(mode=0o700)
    adopting.executor.adopt(KEY, adopting.shared.name, ())
    wait_for(lambda: "is not there" in waiting_of(adopting.into.path).get("t", ""), what="the reason")
    adopting.executor.cancel(KEY)
    adopting.directory.rmdir()
    adopting.directory.with_name("away").rename(adopting.directory)
    adopting.publish()
    assert adopting.news().seen is Seen.ENDED


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_a_server_that_fails_is_waited_out(adopting: Adopting, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Whatever is asked of it."""
    adopting.begin()
    real, fails = Path.is_dir, True

    def failing(path: Path) -> bool:
        if fails and path == adopting.shared.root:
            raise OSError(number, os.strerror(number))
        return real(path)

    monkeypatch.setattr(Path, "is_dir", failing)
    with pytest.raises(SpoolUnusable, match=os.strerror(number)):
        adopting.shared.insist()
    adopting.executor.adopt(KEY, adopting.shared.name, ())
    wait_for(lambda: os.strerror(number) in waiting_of(adopting.into.path).get("t", ""), what="the reason")
    fails = False
    adopting.folder.claim()
    adopting.publish()
    assert adopting.news().seen is Seen.ENDED


def test_a_reason_that_is_over_goes(adopting: Adopting, site: Installation) -> None:
    """Of another task that a process has followed that was killed; and until then only Slurm's attempts have one."""
    views = WaitingViews(site.spool.workflows)
    views.show({KEY.workflow_id: {"t": "pending: Resources", "other": "pending: Priority"}})
    where: dict[str, Executing] = {"t": SLURM, "other": LOCAL}
    for task_id, executor in where.items():
        attempt = Attempt(1, EPOCH, "boot", adopting.shared.name, executor=executor)
        adopting.into.save_task(TaskCheckpoint(FORMAT, task_id, TaskState.RUNNING, (attempt,)))
    tasks: list[dict[str, object]] = [
        {"task_id": name, "state": "running", "waiting_for": []} for name in ("t", "other")
    ]
    show_slurm({"workflow_id": KEY.workflow_id, "tasks": tasks}, site.spool)
    assert [task["waiting_for"] for task in tasks] == [["slurm:pending: Resources"], []]
    adopting.begin()
    adopting.executor.adopt(KEY, adopting.shared.name, ())
    wait_for(lambda: "does not answer" in waiting_of(adopting.into.path).get("t", ""), what="the reason")
    assert set(waiting_of(adopting.into.path)) == {"t"}
    adopting.executor.cancel(KEY)
    assert adopting.news().seen is Seen.NOT_STARTED
    wait_for(lambda: not (adopting.into.path / "waiting.json").exists(), what="the end of the view")


def test_what_has_ended_is_swept_at_the_next_start(adopting: Adopting, site: Installation, tmp_path: Path) -> None:
    gone = adopting.shared.attempt(adopting.shared.name, STRANGER, "t", 1)
    made = tmp_path / "made" / gone.path.name
    made.mkdir(parents=True)
    made.parent.rename(gone.path.parent)  # at once: the executor's own sweep may be under way
    adopting.begin()
    asked = [adopting.shared.root / "probe" / name for name in (STRANGER, new_ulid())]
    kept, unneeded = (adopting.shared.root / "nulib" / (name * 64) for name in "ab")
    (site.spool.nulib / kept.name).mkdir(parents=True)
    for folder in (*asked, kept, unneeded):
        folder.mkdir(parents=True)
    adopting.shared.sweep()
    assert [path.exists() for path in (*asked, kept, unneeded)] == [False, True, True, False]
    assert not gone.path.exists(), "its workflow is not in the spool"
    assert adopting.folder.order.exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_errand_that_breaks_is_told(adopting: Adopting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody would ask Slurm again, and nothing would say so."""

    def broken(*_: object) -> NoReturn:
        raise ZeroDivisionError("as asked")

    monkeypatch.setattr(Commands, "jobs", broken)
    adopting.begin()
    with pytest.raises(RuntimeError, match="as asked"):
        adopting.adopted()


@pytest.mark.parametrize("ended", [True, False])
def test_whoever_cannot_record_it_is_told_again_with_the_next_look(adopting: Adopting, ended: bool) -> None:
    """And not at once, over and over: a disk may be full for long."""
    if ended:
        adopting.into.outcome_path("t", 1).write_bytes(encode(record()))
    seen = Seen.ENDED if ended else Seen.NOT_STARTED
    assert adopting.adopted().seen is seen
    began, more = boottime(), 10
    for _ in range(more):
        assert adopting.adopted().seen is seen
    assert boottime() - began >= (more - 1) * POLL_SECONDS


def test_room_that_cannot_be_held_keeps_nobody_from_adopting(adopting: Adopting, site: Installation) -> None:
    adopting.into.outcome_path("t", 1).write_bytes(encode(record()))
    (site.spool.locks / "targets").unlink(missing_ok=True)
    (site.spool.locks / "targets").mkdir()
    adopting.executor.adopt(KEY, adopting.shared.name, (Wanted("group:one", room=1),))
    assert adopting.news().seen is Seen.ENDED
