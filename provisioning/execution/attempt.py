"""The attempts of a worker: under the lock of its log each is started, seen through, and its outcome published."""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from provisioning.core.states import TaskState
from provisioning.core.workflow import OutcomeRecord, TaskError
from provisioning.errors import SpoolUnusable
from provisioning.execution.ending import end_holders
from provisioning.execution.executor import AttemptRequest
from provisioning.execution.running import Running, Signals
from provisioning.execution.standby import Standby
from provisioning.storage import files
from provisioning.storage.checkpoint import WorkflowFolder, encode
from provisioning.storage.limits import taken
from provisioning.storage.logs import attempt_is_alive, open_attempt_log, sync_attempt_log
from provisioning.storage.naming import StrPath
from provisioning.storage.room import Room, Slate

ROOM_BYTES = 64 << 10
"""Disk space made sure of before the attempt starts; an outcome without a large result always fits."""
RETRY_SECONDS = 1.0
"""Between two tries to record an outcome on a disk that refuses it."""
SHORTAGES = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY})
"""Why a process cannot be started for now: the host has none, no memory, no descriptor to spare, or nu is written."""


class NotStarted(Exception):
    """The operation was not begun: nothing of it has happened, and another attempt may follow."""


class Place(Protocol):
    """Where an attempt is to be made: its files, and whoever says that it is still wanted."""

    log: str
    outcome: str

    @property
    def locks(self) -> Path:
        """The folder of the locks of targets and groups."""

    read_elsewhere: bool
    """Whether another host reads them: it must find all of the log once there is an outcome."""

    def is_wanted(self) -> bool:
        """Whether it is to be made by this process. Asked under the lock of its log."""


class InSpool:
    """The place of an attempt that is made on the spool's own host."""

    read_elsewhere = False

    def __init__(self, request: AttemptRequest, folder: WorkflowFolder, scratch: files.Scratch) -> None:
        _, self._task_id, self._number = request.key
        self._folder, self._worker = folder, scratch.path.name
        self.log = folder.log_file(self._task_id, self._number)
        self.outcome = folder.outcome_file(self._task_id, self._number)

    @property
    def locks(self) -> Path:
        """Those of the spool."""
        return self._folder.path.parent.parent / "locks"

    def is_wanted(self) -> bool:
        """Whether the checkpoint still says that this attempt is starting, here."""
        try:
            checkpoint = self._folder.task(self._task_id)
        except SpoolUnusable:
            return False
        last = checkpoint.last
        return (
            checkpoint.state is TaskState.RUNNING
            and last is not None
            and (last.number, last.worker, last.outcome) == (self._number, self._worker, None)
            and not os.path.lexists(self.outcome)
        )


class Attempts:
    """Makes one attempt after the other in a scratch folder of this process's own."""

    def __init__(self, scratch: files.Scratch, signals: Signals) -> None:
        self._scratch = scratch
        self._signals = signals
        self._room = Room(scratch)
        self._group = Slate(scratch.path / "group")
        self.standby = Standby(scratch)

    def run(self, request: AttemptRequest, place: Place, slot_free: Callable[[], None]) -> OutcomeRecord | None:
        """Make the attempt and publish its outcome; None where it is no longer wanted, NotStarted if it cannot now.

        `slot_free` is called as soon as the process has ended, before what is left of it is.
        """
        path = place.log
        try:
            ready = self.standby.take(request, path)
            process, log = ready or (None, open_attempt_log(path))
        except (SpoolUnusable, OSError) as error:
            raise NotStarted(str(error)) from error
        if log is None:
            return None
        running = Running(request, process, log)
        try:
            if not place.is_wanted():
                return None
            outcomes = self._make_room(os.path.dirname(place.outcome))
            try:
                with _targets(place, request) as running.targets:
                    self._see_through(running, slot_free)
                    record = running.record()
                    if place.read_elsewhere:
                        sync_attempt_log(log)
                    self._publish(place.outcome, record, outcomes)
            finally:
                os.close(outcomes)
        finally:
            running.close()
            os.close(log)
        if attempt_is_alive(path):
            more = end_holders(path, request.grace_seconds)
            record = msgspec.structs.replace(record, leftovers=(*record.leftovers, *more))
        return msgspec.structs.replace(record, result=None)

    def _make_room(self, outcomes: StrPath) -> int:
        """Room for the outcome, and the open folder that it goes to; or NotStarted."""
        try:
            self._room.make(ROOM_BYTES)
            return files.open_folder(outcomes)
        except SpoolUnusable as error:
            raise NotStarted(str(error)) from error

    def _see_through(self, running: Running, slot_free: Callable[[], None]) -> None:
        """Begin the attempt and see it to its end."""
        request = running.request
        if running.refusal is not None:
            running.refuse(running.refusal)
            slot_free()
            return
        try:
            running.begin()
        except OSError as error:
            text = f"{request.argv[0]}: {error.strerror}"
            if error.errno in SHORTAGES:
                raise NotStarted(f"cannot start {text}") from error
            running.refuse(TaskError("provisioning::attempt::cannot-start", text))
            slot_free()
            return
        try:
            if leader := running.leader():
                with contextlib.suppress(SpoolUnusable):  # recovery has to find the group by the log alone
                    self._group.write(encode(leader))
            running.wait(self._signals)
        finally:
            running.end(slot_free)

    def _publish(self, path: StrPath, record: OutcomeRecord, outcomes: int) -> None:
        """Make the outcome durable, however long the disk takes to have room: work done is never called failed.

        What a failed write or sync has touched is given up: each try is in a new file.
        """
        data = encode(record)
        while True:
            try:
                self._room.publish(path, data, outcomes)
                return
            except SpoolUnusable as error:
                _wait_for_room(error)
            while True:
                try:
                    self._room.make(max(len(data), ROOM_BYTES))
                    break
                except SpoolUnusable as error:
                    _wait_for_room(error)

    def close(self) -> None:
        """End what waits, and give back what was taken ahead."""
        self.standby.end()
        self._room.close()
        self._group.close()


@contextlib.contextmanager
def _targets(place: Place, request: AttemptRequest) -> Iterator[int | None]:
    """A descriptor that holds the targets and groups of the attempt, or NotStarted."""
    if not request.wanted:
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            held, others = stack.enter_context(taken(place.locks, request.wanted))
        except OSError as error:
            raise NotStarted(f"the targets cannot be locked: {error.strerror}") from error
        if others:
            raise NotStarted(f"{others} is held by others")
        yield held


def _wait_for_room(error: SpoolUnusable) -> None:
    cause = error.__cause__
    if not isinstance(cause, OSError) or cause.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise error
    select.select([], [], [], RETRY_SECONDS)
