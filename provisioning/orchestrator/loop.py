"""The loop that works a spool: a tick is a list of steps that look for themselves; between ticks workers are heeded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from provisioning.config import Config, Retention
from provisioning.core.states import ENDED_WORKFLOWS, WorkflowEvent, WorkflowState
from provisioning.core.turns import Scheduler
from provisioning.core.workflow import TaskCheckpoint
from provisioning.errors import SpoolUnusable
from provisioning.execution.executor import Executor, News, Remote, wait_for_news
from provisioning.execution.executors import Executors
from provisioning.execution.nulib import Nulib
from provisioning.orchestrator.claim import Rejected, hold, instant, take
from provisioning.orchestrator.claimed import Claimed
from provisioning.orchestrator.complaints import AGAIN_SECONDS, FAULTS, Complaints, concerns_all
from provisioning.orchestrator.held import Held
from provisioning.orchestrator.installed import Installed
from provisioning.orchestrator.limits import TURN_SECONDS, Limits
from provisioning.orchestrator.queue import Queue
from provisioning.orchestrator.recovery import look_at, take_news
from provisioning.orchestrator.requests import apply_all, apply_unheld, requests_stamp
from provisioning.orchestrator.rest import Rest
from provisioning.orchestrator.retention import Retainer
from provisioning.orchestrator.starting import NothingStarts, Starter
from provisioning.storage.lock import Lock
from provisioning.storage.spool import Spool

_log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
"""Between two looks at attempts that no worker of ours runs."""


class Orchestrator:
    """Claims workflows of one spool, starts their tasks in an executor, and records what becomes of them."""

    def __init__(  # noqa: PLR0913 - what it works, with what, and what of it
        self,
        spool: Spool,
        config: Config,
        executor: Executor,
        load_nulib: Callable[[], Nulib],
        *,
        slurm: Callable[[], Remote] | None = None,
        only: str | None = None,
        lock: Lock | None = None,
        complaints: Complaints | None = None,
    ) -> None:
        self._spool = spool
        self._config, self._settings = config, config.orchestrator
        self._executor = Executors(executor, slurm, at_once=only is None)
        self._only = only
        self._lock = lock
        """The lock of the one workflow, taken when it was submitted, until it is held."""
        self._scheduler, self._rest = Scheduler(), Rest(spool)
        self._held: dict[str, Held] = {}
        self._queue = Queue(spool, only)
        self._claimed = Claimed(spool)
        self._complaints = complaints or Complaints()
        self._installed = Installed(load_nulib, lambda: self._now.boottime)
        self._limits = Limits(spool.locks)
        self._starter = Starter(spool, config, self._executor, self._installed, self._limits)
        self._retainer = Retainer(spool, config.retention if only is None else Retention())
        self._scan_at, self.scanned_at, self.draining = 0.0, 0.0, False
        self.errors, self.held = self._complaints.errors, self._held  # to be looked at, and changed by nobody else

    def tick(self) -> None:
        """Look at everything once, and act."""
        self._now, self._stamp = instant(), requests_stamp(self._spool)
        self._rest.look(self._now.boottime)
        self._take_news()
        for held in list(self._held.values()):
            self._attend(held.workflow_id, look_at, self._spool, self._config, held, self._now)
        try:
            if self._now.boottime >= self._scan_at:
                self._scan()
            self._apply_requests()
        except SpoolUnusable as error:
            self._rest.begin(error, self._now.boottime)
        self._starter.guess_again()
        self._act()
        self._rest.end(self._now.boottime)
        self._retainer.step(self._now, pressed=self._rest.reason is not None)

    def _act(self) -> None:
        self._give_turns()
        self._claim()
        self._start()
        self._finish()

    def wait(self, others: list[int], at_most: float = 60.0) -> list[int]:
        """Sleep, heeding workers, until something else wants a tick; those of `others` that are ready."""
        now = self._now.boottime
        dues = (self._queue.next_due(), *(held.next_due() for held in self._held.values()))
        later = [at for at in dues if at and at > now]  # what was due already waits for a slot
        later += [now + LOOK_SECONDS] if any(held.watched for held in self._held.values()) else []
        later += [now + TURN_SECONDS] if self._limits.waited_for else []
        own = (self._executor.trim(now), self._rest.next_look(), self._retainer.next_due())
        at = min(now + at_most, self._scan_at, *later, *(due for due in own if due is not None))
        return wait_for_news(self._executor, others, max(0.0, at - instant().boottime), self._heed)

    def _heed(self) -> bool:
        """Act on what workers say, while nothing was asked since the last tick; whether they will say more."""
        if requests_stamp(self._spool) != self._stamp:
            return False
        self._now = instant()
        self._take_news()
        self._act()
        return self.running

    def scan_soon(self, arrived: Sequence[str] = ()) -> None:
        """Look at the spool's folders in the next tick; where it is known what has arrived in `incoming/`, at that."""
        if not self._queue.hear(arrived):
            self._scan_at = 0.0

    @property
    def running(self) -> bool:
        """Whether an attempt is under way, here or in a worker that was adopted."""
        return any(held.is_running for held in self._held.values())

    def next_start(self) -> float | None:
        """The boottime at which something may start here; None when nothing that is known of ever will."""
        if self._rest.refused():
            return self._rest.next_look()
        if self._is_ready():
            return self._now.boottime
        dues = [self._scheduler.next_due(), self._queue.next_due()]
        dues += [self._now.boottime + TURN_SECONDS] if self._limits.waited_for else []
        return min((at for at in dues if at is not None), default=None)

    def _is_ready(self) -> bool:
        return self._queue.best(self._now) is not None or self._scheduler.best_ready(self._now) is not None

    def stuck(self, seconds: float) -> Exception | None:
        """What has kept this process for so long from doing what there is to do, while no process of its own runs."""
        waits = self._rest.refused() or self._is_ready()
        long = self._rest.seconds(self._now.boottime) >= seconds
        return self._rest.reason if waits and long and not self._executor.busy(self._settings.slots) else None

    # Outcomes

    def _take_news(self) -> None:
        for news in self._executor.news():
            self._limits.release(news.key)
            held = self._held.get(news.key.workflow_id)
            checkpoint = held.checkpoints.get(news.key.task_id) if held else None
            if held is None or checkpoint is None or held.key(checkpoint) != news.key:
                continue
            if not self._attend(held.workflow_id, self._settle_news, held, checkpoint, news):
                self._attend(held.workflow_id, self._starter.watch, held, checkpoint)  # until that can be recorded

    def _settle_news(self, held: Held, checkpoint: TaskCheckpoint, news: News) -> None:
        if not take_news(self._spool, self._config, held, checkpoint, news, self._now):
            self._starter.watch(held, checkpoint)

    # What is in the spool

    def _scan(self) -> None:
        """Find what came in, and what nobody holds any more."""
        self.scanned_at, self._scan_at = self._now.boottime, self._now.boottime + self._settings.scan_seconds
        if self._only is None:
            for name, reason in self._spool.set_aside_damaged_requests():
                self._complaints.tell(f"request {name}: {reason}")
        if self._queue.heed_clock(self._now):
            for held in self._held.values():
                held.reschedule(self._now)
                self._scheduler.add(held.workflow_id, held.schedule, held.plan.workflow.priority)
        for workflow_id, error in self._queue.scan(self._now).items():
            self._complaints.add(workflow_id, error, self._now.boottime)
        for workflow_id in self._claimed.ids() if self._only is None else [self._only]:
            if workflow_id not in self._held:
                self._attend(workflow_id, self._adopt, workflow_id)

    def _adopt(self, workflow_id: str) -> None:
        """Take a claimed workflow whose holder is gone, unless it has ended or is paused."""
        full = len(self._held) >= self._settings.active_workflows
        if self.draining or full or self._complaints.silences(workflow_id, self._now.boottime):
            return
        if self._claimed.wants_holder(workflow_id):
            self._take(workflow_id)

    # Requests

    def _apply_requests(self) -> None:
        for workflow_id in {request.workflow_id: None for _, request in self._spool.pending_requests()}:
            if self._only not in (None, workflow_id):
                continue
            self._attend(workflow_id, self._apply, workflow_id)

    def _apply(self, workflow_id: str) -> None:
        held = self._held.get(workflow_id)
        if held is None:
            if self._only is None and apply_unheld(self._spool, self._config, self._installed.nulib, workflow_id):
                self.scan_soon()
            return
        apply_all(self._spool, held)
        self._scheduler.add(workflow_id, held.schedule, held.plan.workflow.priority)
        if held.checkpoint.cancelling:
            self._starter.end(held)

    def end_running(self) -> None:
        """End every attempt under way; they count as interrupted."""
        for held in self._held.values():
            held.stopping = True
            self._starter.end(held)

    # Claims and starts

    def _claim(self) -> None:
        """Take queued workflows while a slot would be free for them, or where one is more urgent than what is held."""
        if self.draining:
            return
        while len(self._held) < self._settings.active_workflows and self._free_slots() > 0:
            if self._rest.lasts(self._now.boottime):
                return
            candidate = self._queue.best(self._now)
            best = self._scheduler.best_ready(self._now)
            if candidate is None or (best is not None and best <= candidate.rank):
                return
            self._queue.pop()
            if not self._attend(candidate.workflow_id, self._claim_or_postpone, candidate.workflow_id):
                refused = self._rest.next_look() if self._rest.lasts(self._now.boottime) else None
                self._queue.postpone(candidate.workflow_id, refused or self._now.boottime + AGAIN_SECONDS)

    def _claim_or_postpone(self, workflow_id: str) -> None:
        if not self._take(workflow_id):  # somebody else has it
            self._queue.postpone(workflow_id, self._now.boottime + AGAIN_SECONDS)

    def _take(self, workflow_id: str) -> bool:
        """Take a workflow and what is under way in it; False where it must stay where it is for now."""
        try:
            lock, self._lock = self._lock, None
            held = take(self._spool, workflow_id, self._installed.nulib, lock)
        except Rejected as error:
            self._complaints.add(workflow_id, error, self._now.boottime)
            self._queue.drop(workflow_id)
            return True
        if held is None:
            return False
        self._queue.drop(workflow_id)
        if held.checkpoint.state in ENDED_WORKFLOWS:  # another process has worked it meanwhile
            held.release()
            return True
        self._held[workflow_id] = held
        self._complaints.forget(workflow_id)
        _log.info("workflow %s (%s): %d tasks", workflow_id, held.plan.workflow.name, len(held.tasks))
        try:
            hold(held)
            self._starter.take_on(held)
            look_at(self._spool, self._config, held, self._now)
        except FAULTS:
            self._let_go(held)
            raise
        if held.checkpoint.cancelling:
            self._starter.end(held)
        self._scheduler.add(workflow_id, held.schedule, held.plan.workflow.priority)
        return True

    def _free_slots(self) -> int:
        """Room for so many more attempts; those that were adopted take theirs too."""
        return self._executor.free_slots() - sum(len(held.watched) for held in self._held.values())

    def _start(self) -> None:
        """Start what may start, as long as there are slots; after each claim there may be more."""
        if self.draining or self._rest.keeps_from_starting(self._now.boottime):
            return
        while starts := self._scheduler.starts(self._now, self._free_slots()):
            for workflow_id, task_id in starts:
                if held := self._held.get(workflow_id):  # else it was let go at the start before this one
                    self._begin(held, task_id)
            if self._rest.keeps_from_starting(self._now.boottime):
                return
            self._claim()
        self._starter.prepare(self._held.values())

    def _begin(self, held: Held, task_id: str) -> None:
        """Start the task's next attempt, if nothing is in its way."""
        key, begun = held.next_key(task_id), False
        try:
            begun = self._attend(held.workflow_id, self._starter.start, held, key, self._now)
        except NothingStarts as error:
            self._rest.begin(error.cause, self._now.boottime)
        if not begun:
            self._executor.withdraw(key)
            held.schedule.withdraw(task_id)

    def _give_turns(self) -> None:
        """Let those start who have waited for a target or a group that is free now."""
        for workflow_id, task_id in self._limits.next_turns(lambda one, task: self._held[one].schedule.wants(task)):
            self._held[workflow_id].schedule.unpark(task_id)

    def _finish(self) -> None:
        """Record the workflows that have ended, and let go of them and of those that wait for a person."""
        for workflow_id, event, reason in self._scheduler.ends(self._now):
            held = self._held[workflow_id]
            if not self._attend(workflow_id, held.end, event, reason, self._now):
                continue
            if event is WorkflowEvent.ROLLING_BACK:
                self._scheduler.add(workflow_id, held.schedule, held.plan.workflow.priority)
                continue
            if event is not WorkflowEvent.SUCCEEDED:
                self._complaints.note_failure(workflow_id)
            _log.info("workflow %s (%s): %s", workflow_id, held.plan.workflow.name, held.checkpoint.state)
            self._let_go(held)
        for held in list(self._held.values()):
            if not self._attend(held.workflow_id, held.tend, self._now):
                continue
            if held.checkpoint.state is WorkflowState.PAUSED and not held.running() and not held.checkpoint.cancelling:
                if held.schedule.waits_for_person() is not None:
                    self._complaints.note_failure(held.workflow_id)
                self._let_go(held)

    def _attend(self, workflow_id: str, step: Callable[..., object], *arguments: Any) -> bool:
        """Do a step in the work on one workflow; whether it was done.

        Where a file of it is not what it must be, it alone stops, and what of it runs ends by itself.
        """
        try:
            step(*arguments)
        except FAULTS as error:
            if concerns_all(error) or not self._spool.workflows.is_dir():  # else it has been renamed, for now
                self._rest.begin(error, self._now.boottime)
                return False
            self._complaints.add(workflow_id, error, self._now.boottime)
            if held := self._held.get(workflow_id):
                self._let_go(held)
            return False
        return True

    def _let_go(self, held: Held) -> None:
        """Release the workflow, then look for a request that came while it was ours."""
        self._scheduler.remove(held.workflow_id)
        self._limits.forget(held.workflow_id)
        del self._held[held.workflow_id]
        held.release()
        if self._spool.may_be_asked(held.workflow_id):
            self.scan_soon()

    def close(self) -> None:
        """Let go of everything. Attempts under way go on in their workers and are adopted by whoever comes next."""
        self._executor.close()
        self._limits.close()
        if self._lock is not None:
            self._lock.release()
        for held in list(self._held.values()):
            self._let_go(held)
