"""Whether the nodes see the shared directory as it must be: asked by one job on two of them, before any attempt."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from math import inf

import msgspec

from provisioning import __version__
from provisioning.clock import boottime, new_ulid
from provisioning.core.workflow import FORMAT
from provisioning.errors import SpoolUnusable
from provisioning.execution.remote import ANSWER, Answer
from provisioning.execution.slurm_commands import Commands, Unreachable
from provisioning.execution.slurm_notes import Listed, Note, Probed
from provisioning.storage import files
from provisioning.storage.checkpoint import encode, load
from provisioning.storage.shared import AttemptFolder, Shared

_log = logging.getLogger(__name__)

AGAIN_SECONDS = 30.0
"""After a probe that has failed, the next begins."""
REFUSED_SECONDS = 2.0
"""The same after one that Slurm did not take."""
PATIENCE_SECONDS = 60.0
"""So long it waits for two nodes to be free at once; then one has to do."""


class Passed(msgspec.Struct, frozen=True):
    """`probed.json` of the shared directory: what was asked once need not be asked at each start."""

    format: int
    version: str
    directory: str
    """Which folder that was."""


class Probe:
    """At most one job that probes."""

    def __init__(self, shared: Shared, commands: Commands) -> None:
        self._shared, self._commands = shared, commands
        self._path, status = shared.directory / "probed.json", os.stat(shared.directory)
        self._passed = Passed(FORMAT, __version__, f"{status.st_dev}:{status.st_ino}")
        self.note = "asking nodes whether they see the shared directory"
        self.passed = self._was_passed()
        self._job = ""
        self._queued_at = inf
        self._begin_at = 0.0
        self._nodes = 2
        self._answers = False
        """Whether Slurm answered when it was last asked for its queue."""

    def _was_passed(self) -> bool:
        try:
            return load(self._path, Passed) == self._passed
        except (FileNotFoundError, SpoolUnusable):
            return False

    def begin(self) -> Callable[[], Note] | None:
        """The errand that queues the job, where one is due."""
        if self.passed or self._job or boottime() < self._begin_at:
            return None
        name = new_ulid()
        self._folder = AttemptFolder(self._shared.root / "probe" / name)
        self._job, self._queued_at = f"{self._shared.name}.probe.{name}", inf
        self._shared.begin(self._folder, name.encode())
        job, folder, nodes = self._job, self._folder, self._nodes

        def submit() -> Note:
            try:
                self._commands.submit(job, ("attempt", "--probe", str(folder.path)), folder.said, nodes=nodes)
            except Unreachable as error:
                return Probed(str(error))
            return Probed("")

        return submit

    def heed(self, problem: str) -> None:
        """Take note that the job was queued, or why not."""
        self._queued_at = boottime()
        if problem:
            self._fail(problem, REFUSED_SECONDS)
            if self._answers:
                self._with_one()  # there may be no two nodes

    def judge(self, listed: Listed) -> None:
        """Read the answers once there are enough, or the job is over."""
        self._answers = listed.jobs is not None
        if not self._job or listed.jobs is None or self._queued_at > listed.asked_at:
            return
        names = self._folder.names() or ()
        answers = [load(self._folder.path / name, Answer) for name in names if name.startswith(ANSWER)]
        if job := listed.jobs.get(self._job):
            self.note = f"asking nodes whether they see the shared directory: {job.state.lower()} {job.reason}"
            if len(answers) < self._nodes:
                if not job.runs and boottime() > self._queued_at + PATIENCE_SECONDS:
                    self._with_one()  # the other job finds its folder gone, should it begin after all
                return
        if why := self._wrong(answers):
            self._fail(why)
            return
        files.write_atomic(self._path, encode(self._passed), durable=False, scratch=self._shared.scratch)
        _log.info("the nodes see the shared directory: %s", ", ".join(sorted(each.host for each in answers)))
        self.passed, self._job = True, ""
        self._shared.remove(self._folder)

    def _with_one(self) -> None:
        """Ask one node, where two are not to be had, as soon as may be."""
        if self._nodes > 1:
            self._shared.remove(self._folder)
            self._nodes, self._job, self._begin_at = 1, "", 0.0

    def _wrong(self, answers: list[Answer]) -> str:
        """What is not as it must be."""
        if not answers:
            return f"no node answers in the shared directory: {self._folder.last_words() or 'the job said nothing'}"
        asked = self._folder.path.name
        if strange := [each.host for each in answers if each.read != asked]:
            return f"{', '.join(strange)} reads something else in the shared directory than was written"
        if other := [f"{each.host} has {each.version}" for each in answers if each.version != __version__]:
            return f"this is provisioning {__version__}, and {', '.join(other)}"
        if (made := sum(each.claimed for each in answers)) != 1:
            return f"{made} of {len(answers)} nodes made the same folder in the shared directory: mkdir is not atomic"
        return ""

    def _fail(self, why: str, pause: float = AGAIN_SECONDS) -> None:
        if self.note != why:
            _log.error("%s; no attempt is handed to Slurm while that is so", why)
        self.note, self._job, self._begin_at = why, "", boottime() + pause
