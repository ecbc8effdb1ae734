"""Attempts that are to be queued, in their order, a few at a time, and none before the nodes have answered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from math import inf

from provisioning.clock import boottime
from provisioning.errors import ProvisioningError
from provisioning.execution.executor import Key
from provisioning.execution.remote import longest_seconds
from provisioning.execution.slurm.commands import Commands
from provisioning.execution.slurm.errands import AT_ONCE, Errands
from provisioning.execution.slurm.notes import Followed, Note, Submitted
from provisioning.execution.slurm.probe import Probe

LONGEST_SECONDS = 60.0
"""Between two submissions of an attempt that does not begin, at the most: each waits twice as long as the last."""


class Submissions:
    """What is to be queued, and what is being queued."""

    def __init__(self, commands: Commands, errands: Errands, probe: Probe, *, poll_seconds: float) -> None:
        self._commands, self._errands, self._probe = commands, errands, probe
        self._poll_seconds = poll_seconds
        self._waiting: dict[Key, None] = {}
        self._under_way = 0

    def add(self, found: Followed) -> None:
        """Have it queued behind those that are to be already."""
        self._waiting.setdefault(found.key)

    def heed(self, note: Submitted, found: Followed | None) -> None:
        """Take note of what has become of a submission; None where its attempt has ended meanwhile."""
        self._under_way -= 1
        if found:
            found.queued_at = boottime()
            found.problem = note.problem
            found.reason = note.problem or "queued"

    def send(self, followed: Mapping[Key, Followed], *, held_up: bool) -> None:
        """Queue some of them; none while Slurm does not answer, or the nodes have not."""
        if self._waiting and not self._probe.passed:
            with contextlib.suppress(ProvisioningError, OSError):  # it is begun with the next look
                self._probe.begin()
            for key in self._waiting:
                if found := followed.get(key):
                    found.reason = self._probe.reason
            return
        while self._waiting and self._under_way < AT_ONCE and not held_up:
            key = next(iter(self._waiting))
            del self._waiting[key]
            if found := followed.get(key):
                found.queued_at, self._under_way = inf, self._under_way + 1
                found.tries += 1
                pause = self._poll_seconds * 2.0 ** min(found.tries, 10)
                found.again_at = boottime() + min(LONGEST_SECONDS, pause)
                self._errands.send(self._submission(found))

    def _submission(self, found: Followed) -> Callable[[], Note]:
        key, job, folder = found.key, found.job, found.folder

        def submit() -> Note:
            try:
                seconds = longest_seconds(folder.order)
                self._commands.submit(job, ("attempt", str(folder.path)), folder.said, seconds=seconds)
            except ProvisioningError as error:
                return Submitted(key, str(error))
            return Submitted(key, "")

        return submit
