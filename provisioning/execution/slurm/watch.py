"""What a thread knows of the attempts on a cluster: it queues them, looks, and says what became of each.

Slurm is asked before the files are read; what then follows, `core/verdict.py` says.
"""

from __future__ import annotations

import contextlib
import logging
import queue
from collections.abc import Callable
from pathlib import Path

import msgspec

from provisioning.clock import boottime
from provisioning.core.verdict import Standing, verdict
from provisioning.core.workflow import OutcomeRecord
from provisioning.errors import ProvisioningError
from provisioning.execution.executor import AttemptRequest, Key, News, Seen
from provisioning.execution.remote import is_current, order_of
from provisioning.execution.slurm.commands import Commands, Unreachable
from provisioning.execution.slurm.errands import Errands
from provisioning.execution.slurm.notes import (
    Begin,
    Broken,
    Cancel,
    Follow,
    Followed,
    Listed,
    Note,
    Probed,
    Stop,
    Submitted,
    Told,
)
from provisioning.execution.slurm.probe import Probe
from provisioning.execution.slurm.submissions import Submissions
from provisioning.sections import Slurm as Settings
from provisioning.storage.checkpoint import Damaged, WorkflowFolder
from provisioning.storage.shared import Shared
from provisioning.storage.spool import Spool
from provisioning.storage.waiting import WaitingViews

_log = logging.getLogger(__name__)


class Watch:
    """The work of the thread; its methods but `run` are for it alone."""

    def __init__(  # noqa: PLR0913 - what it watches, by which means, and who hears of it
        self,
        spool: Spool,
        settings: Settings,
        shared: Shared,
        commands: Commands,
        *,
        notes: queue.SimpleQueue[Note],
        tell: Callable[[News], None],
    ) -> None:
        self._spool, self._settings, self._shared, self._commands = spool, settings, shared, commands
        self._notes, self._tell = notes, tell
        self._errands = Errands(notes)
        self._followed: dict[Key, Followed] = {}
        self._asking = False
        self._look_at = 0.0
        self._probe = Probe(shared, commands, self._errands)
        self._submissions = Submissions(commands, self._errands, self._probe, poll_seconds=settings.poll_seconds)
        self._problem = ""
        """Why Slurm cannot be asked."""
        self._views = WaitingViews(spool.workflows)

    def run(self) -> None:
        """Do what the notes say, and look every few seconds, until told to stop."""
        with contextlib.suppress(ProvisioningError, OSError):  # it is swept at the next start
            self._shared.sweep()
        while self._take_notes():
            if boottime() >= self._look_at:
                self._look_at = boottime() + max(0.05, self._settings.poll_seconds)
                self._look()
            if not self._followed:
                self._say_what_waits()
            self._submissions.send(self._followed, held_up=bool(self._problem))
        self._errands.dismiss()

    def _take_notes(self) -> bool:
        """Wait for a note or the next look, and do what the notes say; False at the end."""
        patience = max(0.0, self._look_at - boottime()) if self._followed else None
        try:
            note = self._notes.get(timeout=patience)
            while not isinstance(note, Stop):
                self._heed(note)
                note = self._notes.get_nowait()
        except queue.Empty:
            return True
        return False

    def _heed(self, note: Note) -> None:
        match note:
            case Begin(request):
                self._begin(request)
            case Follow(key, worker):
                self._follow(key, worker)
            case Cancel(key):
                if found := self._followed.get(key):
                    found.cancelled = True
                    self._try(found, self._end_unbegun)
            case Submitted(key, problem):
                self._problem = problem or self._problem
                self._submissions.heed(note, self._followed.get(key))
            case Told(key):
                if found := self._followed.get(key):
                    found.telling = False
            case Probed():
                self._probe.heed(note)
            case Broken(problem):
                raise RuntimeError(f"an errand to Slurm has ended in {problem}")
            case Listed():
                self._heed_queue(note)

    def _heed_queue(self, listed: Listed) -> None:
        self._asking = False
        self._problem = listed.problem
        with contextlib.suppress(ProvisioningError, OSError):  # it is looked at again
            self._probe.judge(listed)
        for found in list(self._followed.values()):
            self._try(found, lambda one: self._judge(one, listed))

    def _try(self, found: Followed, step: Callable[[Followed], object]) -> None:
        """Do a step; what a file system refuses is tried again with the next look."""
        try:
            step(found)
        except Damaged as error:
            self._end(found, Seen.LOST, problem=str(error))
        except (ProvisioningError, OSError) as error:
            if found.reason != str(error):
                _log.error("%s: %s", found.key, error)
            found.reason = str(error)

    # Beginning

    def _new(self, key: Key, worker: str) -> Followed:
        folder = self._shared.attempt(worker, *key)
        into = WorkflowFolder(self._spool.workflows / key.workflow_id)
        job = f"{worker}.{key.workflow_id}.{key.task_id}.{key.attempt}"
        found = Followed(key, folder, into, job, own=worker == self._shared.name)
        self._followed[key] = found
        self._views.take_over(key.workflow_id)
        return found

    def _begin(self, request: AttemptRequest) -> None:
        found = self._new(request.key, self._shared.name)
        entry = Path(request.argv[-1])
        moved = self._shared.root / "nulib" / entry.parts[-3] / "entries" / entry.name
        asked = msgspec.structs.replace(request, argv=(*request.argv[:-1], str(moved)), wanted=())
        found.order, found.digest = order_of(asked, self._settings.lost_seconds), entry.parts[-3]
        self._try(found, self._hand_over)

    def _hand_over(self, found: Followed) -> None:
        self._shared.keep_operations(found.digest)
        if self._shared.begin(found.folder, found.order):
            self._submissions.add(found)
        found.order = b""  # else it was begun, and a crash of the host has taken the record of that: it is followed

    def _follow(self, key: Key, worker: str) -> None:
        """With the next look: whoever could not record what this one has said asks for it again at once."""
        if key not in self._followed:
            self._new(key, worker).sought = True

    def _find(self, found: Followed) -> None:
        """Look at an attempt that another process has begun, or may not have."""
        if self._find_outcome(found):
            return
        self._shared.insist()
        names = found.folder.names() or frozenset()
        if "order.json" in names and ("claim" in names or is_current(found.folder.order)):
            found.sought = False
            return
        seen, why = Seen.NOT_STARTED, "it was never handed to Slurm, or by another version"
        if not found.own:
            seen, why = Seen.LOST, "it was begun by a spool that this one is a copy of, or in another directory"
        elif self._give_up(found, why):
            return
        if "order.json" not in names:  # else a node has just begun it, or may yet
            self._end(found, seen, problem=why)

    def _find_outcome(self, found: Followed) -> bool:
        """Whether the spool has its outcome already: another process has taken it, perhaps one that let it go since."""
        record = self._shared.taken(found.into, found.key.task_id, found.key.attempt)
        if record is not None:
            self._end(found, Seen.ENDED, record)
        return record is not None

    def _give_up(self, found: Followed, why: str) -> bool:
        """Say that the attempt will never be begun; False where a node has begun it, or it was given up before."""
        if not self._shared.give_up(found.folder):
            return False
        if not self._find_outcome(found):
            self._end(found, Seen.NOT_STARTED, problem=why)
        return True

    # Looking

    def _look(self) -> None:
        """Ask for the queue, and meanwhile see which attempts have ended."""
        if self._followed and not self._asking:
            self._asking = True
            asked_at, prefixes = boottime(), {found.job.partition(".")[0] for found in self._followed.values()}
            self._errands.send(lambda: self._list(asked_at, prefixes))
        for found in list(self._followed.values()):
            if found.sought:
                self._try(found, self._find)
            elif found.order:
                self._try(found, self._hand_over)
            elif not found.waits or self._problem:
                self._try(found, self._look_at_files)
        self._say_what_waits()

    def _list(self, asked_at: float, prefixes: set[str]) -> Note:
        try:
            jobs = self._commands.jobs(tuple(prefixes))
        except Unreachable as error:
            return Listed(asked_at, None, str(error))
        return Listed(asked_at, jobs)

    def _look_at_files(self, found: Followed) -> frozenset[str]:
        """Take the outcome of the attempt if there is one, else what is new in its log; the names in its folder."""
        names = found.folder.names()
        if names is None:
            self._shared.insist()
            if self._find_outcome(found):
                return frozenset()
            raise Damaged(found.folder.path, "it is gone, and with it what became of the attempt")
        if "outcome.json" in names:
            record = self._shared.take(found.folder, found.into, found.key.task_id, found.key.attempt)
            self._end(found, Seen.ENDED, record)
            if found.own:
                self._shared.remove(found.folder)
        elif "claim" in names:
            self._shared.copy_log(found.folder, found.into.log_path(found.key.task_id, found.key.attempt))
        return names

    def _judge(self, found: Followed, listed: Listed) -> None:
        """Say what follows from the queue and the files, in this order of looks."""
        if found.cancelled and self._end_unbegun(found):
            return
        if found.sought or found.order:
            return
        names = self._look_at_files(found)
        job = listed.jobs.get(found.job) if listed.jobs is not None else None
        live = None if listed.jobs is None else job is not None
        found.waits = job is not None and not job.runs
        ended = found.key not in self._followed
        match verdict(outcome=ended, live=live, claimed="claim" in names or not found.own):
            case Standing.ENDED:
                return
            case Standing.UNKNOWN:
                found.reason = f"Slurm does not answer: {listed.problem}"
            case Standing.LIVE if job is not None:
                found.quiet_since, found.reason = None, job.said
                if found.cancelled and found.own:
                    self._tell_slurm(found, self._commands.terminate)
            case Standing.ABSENT if listed.asked_at > found.queued_at:
                self._queue_again(found)
            case Standing.SILENT if listed.asked_at > found.queued_at:
                self._wait_for_sign(found)

    def _queue_again(self, found: Followed) -> None:
        if boottime() >= found.again_at:
            self._submissions.add(found)
        words = found.folder.last_words()
        found.reason = found.problem or (
            f"a job ended without beginning it: {words}" if words else "to be queued again"
        )

    def _wait_for_sign(self, found: Followed) -> None:
        """Call the attempt lost once it has been silent for long: a node that Slurm has lost may still run it."""
        this, sign = boottime(), found.folder.sign()
        if found.quiet_since is None or sign != found.sign:
            found.sign, found.quiet_since = sign, this
        quiet = this - found.quiet_since
        if quiet >= self._settings.lost_seconds:
            text = f"Slurm knows it no more, and it has given no sign of life for {quiet:.0f} s"
            self._end(found, Seen.LOST, problem=text)
        else:
            found.reason = "Slurm knows it no more: lost, unless it gives a sign of life"

    # Ending

    def _end_unbegun(self, found: Followed) -> bool:
        """End an attempt that no node has begun; False where one has."""
        if not found.own or not self._give_up(found, "it was cancelled before a node had begun it"):
            return False
        self._tell_slurm(found, self._commands.withdraw)
        return True

    def _tell_slurm(self, found: Followed, command: Callable[[str], None]) -> None:
        if found.telling:
            return
        found.telling = True
        key, job = found.key, found.job

        def tell() -> Note:
            try:
                command(job)
            except Unreachable as error:
                _log.warning("%s could not be ended: %s", key, error)
            return Told(key)

        self._errands.send(tell)

    def _end(self, found: Followed, seen: Seen, record: OutcomeRecord | None = None, problem: str = "") -> None:
        self._followed.pop(found.key, None)
        self._tell(News(found.key, seen, msgspec.structs.replace(record, result=None) if record else None, problem))

    # Telling

    def _say_what_waits(self) -> None:
        waiting: dict[str, dict[str, str]] = {}
        for found in self._followed.values():
            if found.reason:
                waiting.setdefault(found.key.workflow_id, {})[found.key.task_id] = found.reason
        self._views.show(waiting)
