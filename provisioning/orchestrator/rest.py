"""When a process starts nothing: the disk is below its marks, or the host has refused it a write or a process.

While a clean-up keeps it from planning, it claims nothing, and starts what it holds.
"""

from __future__ import annotations

import logging

from provisioning.errors import SpoolUnusable
from provisioning.storage.disk import DiskLow
from provisioning.storage.spool import Spool
from provisioning.storage.trees import TreesLeaving

_log = logging.getLogger(__name__)

REST_SECONDS = 1.0
"""Between two looks at what is in the way."""
LOOK_SECONDS = 0.1
"""Between two looks at the disk while nothing is."""


class Rest:
    """What is in the way of claims and starts, and since when. What runs goes on, and a rest ends by itself.

    It is told once when it begins and once when it ends.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._since = 0.0
        self._told: set[tuple[type, int | None]] = set()
        self._until = 0.0
        self._look_at = 0.0
        self.reason: Exception | None = None

    def look(self, boottime: float) -> None:
        """Rest while the disk is below its marks."""
        if self.keeps_from_starting(boottime) or boottime < self._look_at:
            return
        self._look_at = boottime + LOOK_SECONDS
        try:
            shortage: SpoolUnusable | None = self._spool.shortage()
        except SpoolUnusable as error:
            shortage = error
        if shortage is not None:
            self.begin(shortage, boottime)

    def begin(self, error: Exception, boottime: float) -> None:
        """Rest, or go on resting, for this reason."""
        if self.reason is None:
            self._since = boottime
            self._told.clear()
        cause = error if isinstance(error, OSError) else error.__cause__
        kind = (type(error), cause.errno if isinstance(cause, OSError) else None)
        if kind not in self._told:
            nothing = "nothing new is claimed" if isinstance(error, TreesLeaving) else "nothing is claimed or started"
            _log.error("%s; %s while that is so", error, nothing)
            self._told.add(kind)
        self.reason, self._until = error, boottime + REST_SECONDS

    def next_look(self) -> float | None:
        """The boottime at which it is looked at again; None where nothing is in the way."""
        return self._until if self.reason is not None else None

    def lasts(self, boottime: float) -> bool:
        """Whether nothing is to be claimed."""
        return boottime < self._until

    def keeps_from_starting(self, boottime: float) -> bool:
        """Whether nothing is to be started either."""
        return self.lasts(boottime) and not isinstance(self.reason, TreesLeaving)

    def end(self, boottime: float) -> None:
        """Take note that a whole tick has met nothing in the way."""
        if self.reason is not None and not self.lasts(boottime):
            _log.info("claims and starts go on after %.0f s", boottime - self._since)
            self.reason = None

    def refused(self) -> bool:
        """Whether something could not be done: unlike a low disk, it may be what no queue knows of."""
        return self.reason is not None and not isinstance(self.reason, DiskLow)

    def seconds(self, boottime: float) -> float:
        """So long it has lasted."""
        return boottime - self._since if self.reason is not None else 0.0
