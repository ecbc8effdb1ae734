"""Whether the nodes see the shared directory as it must be: asked by one job on two of them, before any attempt.

One node alone cannot tell whether another sees what it has made: it has to do only where the cluster has no other.
"""

from __future__ import annotations

import contextlib
import logging
import os
from math import inf

import msgspec

from provisioning import __version__
from provisioning.clock import boottime, new_ulid
from provisioning.core.workflow import FORMAT
from provisioning.errors import SpoolUnusable
from provisioning.execution.remote import ANSWER, Answer
from provisioning.execution.slurm.commands import Commands, Unreachable
from provisioning.execution.slurm.errands import Errands
from provisioning.execution.slurm.notes import Listed, Note, Probed
from provisioning.storage import files
from provisioning.storage.checkpoint import encode, load
from provisioning.storage.shared import AttemptFolder, Shared

_log = logging.getLogger(__name__)

AGAIN_SECONDS = 30.0
"""After a probe that has failed, the next begins."""
REFUSED_SECONDS = 2.0
"""The same after one that Slurm did not take."""
QUEUED_SECONDS = 600.0
"""So long it waits in the queue for its nodes to be free at once; then it is taken out, and the next begins."""
RUNNING_SECONDS = 60.0
"""So long it may run."""


class Passed(msgspec.Struct, frozen=True):
    """`probed.json` of the shared directory: what was asked once need not be asked at each start."""

    format: int
    version: str
    directory: str
    """Which folder that was, by its number: that of its device may change with each boot."""


class Probe:
    """At most one job that probes."""

    def __init__(self, shared: Shared, commands: Commands, errands: Errands) -> None:
        self._shared, self._commands, self._errands = shared, commands, errands
        self._path = shared.directory / "probed.json"
        self._passed = Passed(FORMAT, __version__, str(os.stat(shared.directory).st_ino))
        self.reason = "asking nodes whether they see the shared directory"
        self.passed = self._was_passed()
        self._job = ""
        self._queued_at = inf
        self._begin_at = 0.0
        self._nodes = 2
        self._failed_of = ""

    def _was_passed(self) -> bool:
        try:
            return load(self._path, Passed) == self._passed
        except (FileNotFoundError, SpoolUnusable):
            return False

    def begin(self) -> None:
        """Have the job queued, where one is due."""
        if self.passed or self._job or boottime() < self._begin_at:
            return
        name = new_ulid()
        self._folder = AttemptFolder(self._shared.root / "probe" / name)
        self._shared.begin(self._folder, name.encode())
        self._job, self._queued_at = f"{self._shared.name}.probe.{name}", inf
        job, folder = self._job, self._folder

        def submit() -> Note:
            nodes = 0
            try:
                nodes = 1 if self._commands.nodes() == 1 else 2
                words = ("attempt", "--probe", str(folder.path))
                self._commands.submit(job, words, folder.said, nodes=nodes, seconds=RUNNING_SECONDS)
            except Unreachable as error:
                return Probed(job, nodes, str(error))
            return Probed(job, nodes)

        self._errands.send(submit)

    def heed(self, note: Probed) -> None:
        """Take note that the job was queued, or why not."""
        if note.job != self._job:
            return
        self._queued_at, self._nodes = boottime(), note.nodes
        if note.problem:
            self._fail(note.problem, REFUSED_SECONDS)

    def judge(self, listed: Listed) -> None:
        """Read the answers once there are enough, or the job is over."""
        if not self._job or listed.jobs is None or self._queued_at > listed.asked_at:
            return
        names = self._folder.names() or ()
        answers = [load(self._folder.path / name, Answer) for name in names if name.startswith(ANSWER)]
        job = listed.jobs.get(self._job)
        if job and len(answers) < self._nodes:
            self.reason = (
                f"asking {self._nodes} nodes at once whether they see the shared directory: {job.said or 'running'}"
            )
            if not job.runs and boottime() > self._queued_at + QUEUED_SECONDS:
                self._fail(f"{self._nodes} nodes were not free at once within {QUEUED_SECONDS:g} s: {job.said}")
            return
        if why := self._wrong(answers):
            self._fail(why)
            return
        files.write_atomic(self._path, encode(self._passed), durable=False, scratch=self._shared.scratch)
        only = "; the partition has no other" if self._nodes == 1 else ""
        _log.info("the nodes see the shared directory: %s%s", ", ".join(sorted(each.host for each in answers)), only)
        self.passed, self._job = True, ""
        self._shared.remove(self._folder)

    def _wrong(self, answers: list[Answer]) -> str:
        """What is not as it must be."""
        if (count := len(answers)) < self._nodes:
            said = self._folder.last_words() or "the job said nothing"
            return f"{count} of {self._nodes} nodes answered in the shared directory: {said}"
        asked = self._folder.path.name
        if strange := [each.host for each in answers if each.read != asked]:
            return f"{', '.join(strange)} reads something else in the shared directory than was written"
        if other := [f"{each.host} has {each.version}" for each in answers if each.version != __version__]:
            return f"this is provisioning {__version__}, and {', '.join(other)}"
        if (made := sum(each.claimed for each in answers)) != 1:
            return f"{made} of {count} nodes made the same folder in the shared directory: mkdir is not atomic"
        return ""

    def _fail(self, why: str, pause: float = AGAIN_SECONDS) -> None:
        if self._failed_of != why:  # the same is logged once, however often it is tried
            _log.error("%s; no attempt is handed to Slurm while that is so", why)
        job, self._job = self._job, ""
        self.reason, self._failed_of, self._begin_at = why, why, boottime() + pause
        self._errands.send(lambda: self._take_out(job))
        self._shared.remove(self._folder)  # the job finds it gone, should it begin after all

    def _take_out(self, job: str) -> None:
        with contextlib.suppress(Unreachable):
            self._commands.withdraw(job)
