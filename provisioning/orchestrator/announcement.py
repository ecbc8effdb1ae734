"""What an orchestrator says of itself in `orchestrator.json`, and says again where that was lost."""

from __future__ import annotations

import logging
import os
import socket

import msgspec

from provisioning import __version__
from provisioning.clock import boottime, now
from provisioning.config import Orchestrator
from provisioning.core.workflow import FORMAT
from provisioning.errors import SpoolUnusable
from provisioning.processes import resident
from provisioning.storage.spool import OrchestratorRecord, Spool

_log = logging.getLogger(__name__)


class Announcement:
    """The record of this process, the holder of the orchestrator's lock. SpoolUnusable where it cannot be made."""

    def __init__(self, spool: Spool, settings: Orchestrator) -> None:
        self._spool = spool
        self._seconds = settings.scan_seconds
        self._look_at = boottime() + self._seconds
        self._refused = False
        self._said = OrchestratorRecord(
            format=FORMAT,
            process=resident(os.stat(spool.root)),
            host=socket.gethostname(),
            started_at=now(),
            version=__version__,
            slots=settings.slots,
            root=str(spool.root),
        )
        spool.save_orchestrator_record(self._said)

    def keep(self) -> None:
        """Say it again where it is missing, damaged or another's; looked for as often as the spool is."""
        if boottime() < self._look_at:
            return
        self._look_at = boottime() + self._seconds
        if self._spool.orchestrator_record() != self._said and self._say():
            _log.warning("orchestrator.json was lost or damaged, and is written again")

    def drain(self) -> None:
        """Say that nothing more is started."""
        self._said = msgspec.structs.replace(self._said, draining=True)
        self._say()

    def _say(self) -> bool:
        """Whether it could be said. Where not, that is told once: it is a view, and tried again."""
        try:
            self._spool.save_orchestrator_record(self._said)
        except SpoolUnusable as error:
            if not self._refused:
                _log.warning("%s", error)
            self._refused = True
        else:
            self._refused = False
        return not self._refused
