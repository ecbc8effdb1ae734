"""What an orchestrator tells monitoring of itself and its spool: `metrics.prom`, every few seconds, by rename.

It is a view: what the disk refuses is told once and tried again, and nothing waits for it. A look at many workflows is
made in portions, and seldom enough that all of it takes at most a hundredth of one processor.
"""

from __future__ import annotations

import logging

from provisioning import __version__
from provisioning.clock import boottime, now
from provisioning.config import Config
from provisioning.core.counters import Counters
from provisioning.core.scheduler import Now
from provisioning.core.states import WorkflowState
from provisioning.core.workflow import WorkflowCheckpoint
from provisioning.errors import SpoolUnusable
from provisioning.orchestrator.loop import Orchestrator
from provisioning.orchestrator.oversight import Oversight
from provisioning.storage import files, foreign
from provisioning.storage.audit import Tail
from provisioning.storage.disk import free
from provisioning.storage.spool import Spool
from provisioning.views.census import Census
from provisioning.views.metrics import Readings, metrics_text

_log = logging.getLogger(__name__)

PORTION_SECONDS = 0.002
"""So long it may hold up one turn of the loop, but for the last part of a round."""
REST_FACTOR = 100
"""So many times what a round took passes before the next one, if that is longer than what is set."""
PORTION_BYTES = 128 << 10
"""Of the audit log, in one turn."""
MODE = 0o644
"""Of a file outside the spool: its reader is another user."""


class Meter:
    """Writes the metrics of the orchestrator of a spool. Made after its start is in the audit log."""

    def __init__(self, spool: Spool, config: Config, oversight: Oversight, orchestrator: Orchestrator) -> None:
        self._spool = spool
        self._config = config
        self._oversight = oversight
        self._orchestrator = orchestrator
        self._counters: Counters = oversight.counters
        self._began = now()
        self._tail = Tail(oversight.audit)
        self._census = Census(spool, self._ended)
        self._due = 0.0 if config.metrics.seconds else float("inf")
        self._took = 0.0
        self._refused = False

    def step(self, this: Now) -> None:
        """Do a portion, if it is time."""
        if this.boottime < self._due:
            return
        began = boottime()
        try:
            over = self._look(began + PORTION_SECONDS)
            if over:
                self._write(metrics_text(self._readings(this)))
                self._refused = False
        except (SpoolUnusable, OSError) as error:
            over = True
            if not self._refused:
                _log.warning("metrics cannot be written: %s", error)
            self._refused = True
        self._took += boottime() - began
        if over:
            self._due = this.boottime + max(self._config.metrics.seconds, REST_FACTOR * self._took)
            self._took = 0.0

    def next_due(self) -> float:
        """The boottime at which `step` has something to do."""
        return self._due

    def _look(self, until: float) -> bool:
        """Whether all that is new was looked at."""
        if records := self._tail.read(PORTION_BYTES):
            for record in records:
                self._counters.note_event(record)
                self._census.note(str(record.get("workflow_id", "")))
            return False
        return self._census.round(until)

    def _ended(self, checkpoint: WorkflowCheckpoint) -> None:
        if checkpoint.started_at and checkpoint.ended_at and checkpoint.ended_at >= self._began:
            self._counters.workflow_seconds.observe((checkpoint.ended_at - checkpoint.started_at).total_seconds())

    def _readings(self, this: Now) -> Readings:
        """What is shown: of workflows that are held here, as they are in this instant."""
        workflows, tasks = self._census.workflows.copy(), self._census.tasks.copy()
        workflows[str(WorkflowState.QUEUED)] += len(self._spool.incoming_ids())
        held = self._orchestrator.held.values()
        for each in held:
            if known := self._census.of(each.workflow_id):
                workflows[known.state] -= 1
                tasks.subtract(dict(known.tasks))
            workflows[str(each.checkpoint.state)] += 1
            live = each.schedule is each.forward
            tasks.update(each.forward.counts() if live else each.checkpoint.counts)
        disk = free(self._spool.root)
        return Readings(
            spool=str(self._spool.root),
            version=__version__,
            started_at=self._began.timestamp(),
            scanned_at=this.wall.timestamp() - (this.boottime - self._orchestrator.scanned_at),
            slots=self._config.orchestrator.slots,
            running=sum(len(each.running()) for each in held),
            free_bytes=disk.bytes,
            free_inodes=disk.inodes,
            wanted_bytes=self._config.disk.free_bytes,
            head=self._oversight.audit.head(),
            workflows=workflows,
            tasks=tasks,
            counters=self._counters,
        )

    def _write(self, text: str) -> None:
        data, path = text.encode(), self._config.metrics.file
        if path is not None:
            foreign.replace(path, data, MODE, durable=False)
        else:
            own = self._spool.root / "metrics.prom"
            files.write_atomic(own, data, durable=files.DURABLE["view"], scratch=self._spool.scratch)
