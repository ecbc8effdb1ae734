"""The loop that works a spool. A tick is a list of named steps; whatever wakes it, the steps look for themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from provisioning.config import Config
from provisioning.core import attempts
from provisioning.core.scheduler import Scheduler
from provisioning.core.states import ENDED_WORKFLOWS, TaskState, WorkflowEvent, WorkflowState
from provisioning.core.workflow import TaskCheckpoint
from provisioning.errors import ProvisioningError, SpoolUnusable
from provisioning.execution.executor import Executor, Key, News, Seen, wait_for_news
from provisioning.execution.nulib import Nulib
from provisioning.orchestrator.claim import Rejected, hold, instant, take
from provisioning.orchestrator.claimed import Claimed
from provisioning.orchestrator.complaints import AGAIN_SECONDS, Complaints, refused_by_disk
from provisioning.orchestrator.held import Held
from provisioning.orchestrator.queue import Queue
from provisioning.orchestrator.recovery import cancel_adopted, settle
from provisioning.orchestrator.requests import apply_all, apply_unheld
from provisioning.storage.checkpoint import Damaged
from provisioning.storage.spool import Spool

_log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
"""Between two looks at attempts that no worker of ours runs."""
REST_SECONDS = 2.0
"""Before anything is started again after the disk refused a write."""


class Orchestrator:
    """Claims workflows of one spool, starts their tasks in an executor, and records what becomes of them."""

    def __init__(
        self,
        spool: Spool,
        config: Config,
        executor: Executor,
        load_nulib: Callable[[], Nulib],
        *,
        only: str | None = None,
    ) -> None:
        self._spool = spool
        self._config = config
        self._executor = executor
        self._load_nulib = load_nulib
        self._only = only
        self._scheduler = Scheduler()
        self._held: dict[str, Held] = {}
        self._queue = Queue(spool, only)
        self._claimed = Claimed(spool)
        self._complaints = Complaints()
        self._nulib: tuple[float, Nulib] | None = None
        self._rest_until = 0.0
        self._scan_at = 0.0
        self.draining = False
        self.failed = False
        """Whether a workflow that this process worked ended otherwise than well."""
        self.errors = self._complaints.errors

    # One tick

    def tick(self) -> None:
        """Look at everything once, and act."""
        self._now = instant()
        self._take_news()
        self._look_at_watched()
        if self._now.boottime >= self._scan_at:
            self._scan()
        self._apply_requests()
        self._claim()
        self._start()
        self._finish()

    def wait(self, others: list[Any], at_most: float = 60.0) -> list[Any]:
        """Sleep until a worker, a deadline or one of `others` wants a tick; those of `others` that are ready."""
        trim_at = self._executor.trim(self._now.boottime)
        dues = [self._queue.next_due(), *(held.schedule.next_due() for held in self._held.values())]
        later = (at for at in dues if at and at > self._now.boottime)  # what was due already waits for a slot
        bounds = [self._now.boottime + at_most, self._scan_at, trim_at, *later]
        if any(held.watched for held in self._held.values()):
            bounds.append(self._now.boottime + LOOK_SECONDS)
        if self._rest_until > self._now.boottime:
            bounds.append(self._rest_until)
        at = min(bound for bound in bounds if bound is not None)
        return wait_for_news(self._executor, others, max(0.0, at - instant().boottime))

    def scan_soon(self) -> None:
        """Look at the spool's folders in the next tick."""
        self._scan_at = 0.0

    @property
    def running(self) -> bool:
        """Whether an attempt is under way, here or in a worker that was adopted."""
        return any(held.running() for held in self._held.values())

    def next_start(self) -> float | None:
        """The boottime at which something may start here; None when nothing that is known of ever will."""
        if self._queue.best(self._now) or self._scheduler.best_ready(self._now) is not None:
            return self._now.boottime
        return min((at for at in (self._scheduler.next_due(), self._queue.next_due()) if at is not None), default=None)

    # Outcomes

    def _take_news(self) -> None:
        for news in self._executor.news():
            held = self._held.get(news.key.workflow_id)
            checkpoint = held.checkpoints.get(news.key.task_id) if held else None
            if held is None or checkpoint is None or held.key(checkpoint) != news.key:
                continue
            try:
                self._settle_news(held, checkpoint, news)
            except Damaged as error:
                self._set_aside(held, error)
            except SpoolUnusable as error:
                self._rest(error)
                held.watched.add(news.key)  # its outcome is on the disk: it is looked for until it can be recorded

    def _settle_news(self, held: Held, checkpoint: TaskCheckpoint, news: News) -> None:
        if news.seen is Seen.ENDED and news.record is not None:
            task = held.tasks[checkpoint.task_id]
            cancelling = held.checkpoint.cancelling
            after = attempts.ended(checkpoint, task, news.record, self._now, cancelling=cancelling)
            held.record(after, self._now)
            if news.record.leftovers:
                pids = ", ".join(map(str, news.record.leftovers))
                _log.warning("%s left processes behind, which were ended: %s", news.key, pids)
        elif news.seen is Seen.NOT_STARTED:
            _log.warning("%s was not started: %s", news.key, news.problem)
            held.record(attempts.not_started(checkpoint, self._now, news.problem), self._now)
        else:
            _log.warning("%s was lost: %s", news.key, news.problem)
            if not settle(self._spool, self._config, held, checkpoint, self._now):
                held.watched.add(news.key)

    def _look_at_watched(self) -> None:
        for held in list(self._held.values()):
            try:
                self._look_at(held)
            except Damaged as error:
                self._set_aside(held, error)
            except SpoolUnusable as error:
                self._rest(error)

    def _look_at(self, held: Held) -> None:
        for key in list(held.watched):
            checkpoint = held.checkpoints[key.task_id]
            recorded = checkpoint.state is not TaskState.RUNNING or held.key(checkpoint) != key
            if recorded or settle(self._spool, self._config, held, checkpoint, self._now):
                held.watched.discard(key)
                held.ending.pop(key, None)

    # What is in the spool

    def _scan(self) -> None:
        """Find what came in, and what nobody holds any more."""
        self._scan_at = self._now.boottime + self._config.orchestrator.scan_seconds
        for workflow_id, error in self._queue.scan(self._now).items():
            self._complaints.add(workflow_id, error, self._now.boottime)
        for workflow_id in self._spool.claimed_ids() if self._only is None else [self._only]:
            if workflow_id not in self._held:
                self._adopt(workflow_id)

    def _adopt(self, workflow_id: str) -> None:
        """Take a claimed workflow whose holder is gone, unless it has ended or is paused."""
        full = len(self._held) >= self._config.orchestrator.active_workflows
        if self.draining or full or self._complaints.silences(workflow_id, self._now.boottime):
            return
        try:
            if not self._claimed.wants_holder(workflow_id):
                return
        except (ProvisioningError, FileNotFoundError) as error:
            self._complaints.add(workflow_id, error, self._now.boottime)
            return
        self._take(workflow_id)

    # Requests

    def _apply_requests(self) -> None:
        for workflow_id in {request.workflow_id for _, request in self._spool.pending_requests()}:
            if self._only not in (None, workflow_id):
                continue
            try:
                self._apply(workflow_id)
            except ProvisioningError as error:
                if refused_by_disk(error):
                    self._rest(error)
                else:
                    self._complaints.add(workflow_id, error, self._now.boottime)

    def _apply(self, workflow_id: str) -> None:
        held = self._held.get(workflow_id)
        if held is None:
            if self._only is None and apply_unheld(self._spool, self._config, self._current_nulib, workflow_id):
                self.scan_soon()
            return
        apply_all(self._spool, held)
        self._scheduler.add(workflow_id, held.schedule, held.plan.workflow.priority)
        if held.checkpoint.cancelling:
            self._end_attempts(held)

    def _end_attempts(self, held: Held) -> None:
        for checkpoint in held.running():
            if held.key(checkpoint) in held.watched:
                cancel_adopted(self._spool, checkpoint)
            else:
                self._executor.cancel(held.key(checkpoint))

    def end_running(self) -> None:
        """End every attempt under way; they count as interrupted."""
        for held in self._held.values():
            self._end_attempts(held)

    # Claims and starts

    def _claim(self) -> None:
        """Take queued workflows while a slot would be free for them, or where one is more urgent than what is held."""
        if self.draining or self._now.boottime < self._rest_until:
            return
        while len(self._held) < self._config.orchestrator.active_workflows and self._executor.free_slots() > 0:
            candidate = self._queue.best(self._now)
            best = self._scheduler.best_ready(self._now)
            if candidate is None or (best is not None and best >= candidate.priority):
                return
            self._queue.pop()
            if not self._take(candidate.workflow_id, expired=candidate.expired):
                self._queue.postpone(candidate.workflow_id, self._now.boottime + AGAIN_SECONDS)

    def _take(self, workflow_id: str, *, expired: bool = False) -> bool:
        """Take a workflow and what is under way in it; False where it must stay where it is for now."""
        try:
            held = take(self._spool, workflow_id, self._current_nulib)
        except Rejected as error:
            self._complaints.add(workflow_id, error, self._now.boottime)
            self._queue.drop(workflow_id)
            self.failed = True
            return True
        except ProvisioningError as error:
            self._complaints.add(workflow_id, error, self._now.boottime)
            return False
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
            if expired:
                held.save(msgspec.structs.replace(held.checkpoint, cancelling=True, reason="expired"))
                held.schedule.cancelling = True
        except SpoolUnusable as error:
            self._rest(error)
        held.watched.update(held.key(checkpoint) for checkpoint in held.running())
        self._look_at_watched()
        if workflow_id not in self._held:
            return False  # a file of it is damaged
        if held.checkpoint.cancelling:
            self._end_attempts(held)
        self._scheduler.add(workflow_id, held.schedule, held.plan.workflow.priority)
        return True

    def _start(self) -> None:
        """Start what may start, as long as there are slots; after each claim there may be more."""
        if self.draining or self._now.boottime < self._rest_until:
            return
        while starts := self._scheduler.starts(self._now, self._executor.free_slots()):
            for workflow_id, task_id in starts:
                self._begin(self._held[workflow_id], task_id)
            if self._now.boottime < self._rest_until:
                return
            self._claim()

    def _begin(self, held: Held, task_id: str) -> None:
        """Record that the task's next attempt is starting, then hand it to its worker."""
        task = held.tasks[task_id]
        checkpoint = held.task_checkpoint(task_id)
        number = checkpoint.attempts[-1].number + 1 if checkpoint.attempts else 1
        key = Key(held.workflow_id, task_id, number)
        worker = self._executor.assign(key)
        after = attempts.started(checkpoint, self._now, worker)
        try:
            request = held.request(key, self._spool, self._config, self._current_nulib())
            held.folder.save_task(after, held.start_kind(task))
        except ProvisioningError as error:
            self._executor.withdraw(key)
            held.schedule.withdraw(task_id)
            self._rest(error)
            return
        held.settle(after, self._now)
        self._executor.start(request)

    def _finish(self) -> None:
        """Record the workflows that have ended, and let go of them and of those that wait for a person."""
        for workflow_id, event, reason in self._scheduler.ends(self._now):
            held = self._held[workflow_id]
            try:
                held.end(event, reason, self._now)
            except SpoolUnusable as error:
                self._rest(error)
                continue
            self.failed |= event is not WorkflowEvent.SUCCEEDED
            _log.info("workflow %s (%s): %s", workflow_id, held.plan.workflow.name, held.checkpoint.state)
            self._let_go(held)
        for held in list(self._held.values()):
            try:
                held.wait_for_person(self._now)
            except SpoolUnusable as error:
                self._rest(error)
            if held.checkpoint.state is WorkflowState.PAUSED and not held.running() and not held.checkpoint.cancelling:
                self._let_go(held)

    def _set_aside(self, held: Held, error: Damaged) -> None:
        """A file of the workflow is damaged: it alone stops, and what of it runs ends by itself."""
        self._complaints.add(held.workflow_id, error, self._now.boottime)
        self._let_go(held)

    def _let_go(self, held: Held) -> None:
        """Release the workflow, then look for a request that came while it was ours."""
        self._scheduler.remove(held.workflow_id)
        del self._held[held.workflow_id]
        held.release()
        if self._spool.requests_of(held.workflow_id):
            self.scan_soon()

    def _current_nulib(self) -> Nulib:
        """The operations as they were at most a second ago."""
        if self._nulib is None or self._nulib[0] + 1.0 < self._now.boottime:
            self._nulib = (self._now.boottime, self._load_nulib())
        return self._nulib[1]

    def _rest(self, error: ProvisioningError) -> None:
        """The disk refuses writes: start nothing for a while; what runs goes on."""
        if self._now.boottime >= self._rest_until:
            _log.error("%s; nothing is started for %g s", error, REST_SECONDS)
        self._rest_until = self._now.boottime + REST_SECONDS

    def close(self) -> None:
        """Let go of everything. Attempts under way go on in their workers and are adopted by whoever comes next."""
        self._executor.close()
        for held in list(self._held.values()):
            self._let_go(held)
