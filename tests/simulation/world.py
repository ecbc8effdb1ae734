"""A simulated host: its clock, its worker processes and what they do, with the real files and locks of a real spool.

Each worker has its own open files, so its flocks exclude the orchestrator as those of a process would. Its fate is
drawn from the seed and the attempt's key alone: the order in which others act changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import random
import signal
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from provisioning.core.identifiers import Process, ulid
from provisioning.core.scheduler import Now
from provisioning.core.states import Outcome
from provisioning.core.workflow import FORMAT, OutcomeRecord, TaskError
from provisioning.errors import SpoolUnusable
from provisioning.execution.attempt import InSpool
from provisioning.execution.executor import Key, News, Seen
from provisioning.storage import files
from provisioning.storage.checkpoint import WorkflowFolder, encode
from provisioning.storage.limits import taken
from provisioning.storage.logs import open_attempt_log
from provisioning.storage.room import Room
from provisioning.storage.spool import Spool
from tests.simulation.calls import Calls, Crash
from tests.simulation.values import EPOCH
from tests.simulation.worker import Begin, End, Worker

PROBE = "work.probe"


class World:
    """The host: time, workers, and the trace of what really happened."""

    def __init__(self, seed: int, spool: Spool, calls: Calls) -> None:
        self.seed = seed
        self.spool = spool
        self.calls = calls
        self.boot = 1
        self.boottime = 100.0
        self.elapsed = 0.0
        self.wall_set_by = 0.0
        """Seconds by which the wall clock was set forward in all."""
        self.trace: list[Begin | End] = []
        self.effects: dict[tuple[str, str], int] = {}
        self.workers: dict[str, Worker] = {}
        self.check: Callable[[Key], None] = lambda key: None
        """Called as an attempt begins its work; fails the history if it must not."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    # Time

    def instant(self) -> Now:
        """This instant; stands in for `claim.instant`."""
        return Now(self.wall(), self.boottime, self.boot_id())

    def wall(self) -> datetime:
        """Stands in for `clock.now`."""
        return EPOCH + timedelta(seconds=self.elapsed + self.wall_set_by)

    def set_clock(self, seconds: float) -> None:
        self.wall_set_by += seconds

    def new_ulid(self, after: str = "") -> str:
        """Stands in for `clock.new_ulid`."""
        self._count += 1
        return ulid(self._count, bytes(10))

    def boot_id(self) -> str:
        return f"boot-{self.boot}"

    def later(self, seconds: float, deed: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.elapsed + seconds, self._count, deed))

    def next_event(self) -> float | None:
        """Seconds until something happens by itself."""
        return max(0.0, self._events[0][0] - self.elapsed) if self._events else None

    def advance(self, seconds: float) -> None:
        """Let the time pass, and all that happens in it."""
        until = self.elapsed + seconds
        while self._events and self._events[0][0] <= until:
            at, _, deed = heapq.heappop(self._events)
            self._move(at)
            deed()
        self._move(until)

    def _move(self, elapsed: float) -> None:
        self.boottime += max(0.0, elapsed - self.elapsed)
        self.elapsed = max(self.elapsed, elapsed)

    # Workers

    def fate(self, key: Key | str) -> random.Random:
        return random.Random(f"{self.seed}/{key}")

    def hire(self) -> Worker:
        self._count += 1
        worker = Worker(ulid(self._count, bytes(10)), 5_000_000 + self._count)
        self.workers[worker.name] = worker
        return worker

    def living(self) -> list[Worker]:
        """Workers of which an attempt lives, with or without the worker itself."""
        return [worker for worker in self.workers.values() if worker.begun and worker.log is not None]

    def begin(self, worker: Worker) -> None:
        """What a worker does when its command has come: `execution.attempt.Attempts.run` up to the spawn."""
        if not worker.alive:
            return
        with self._living(worker):
            try:
                worker.scratch = files.Scratch(self.spool.tmp / worker.name)
                path, identity = worker.scratch.path / "process", Process(self.boot_id(), worker.pid, 1)
                files.write_atomic(path, encode(identity), durable=False, scratch=worker.scratch)
            except (SpoolUnusable, OSError):
                self.kill(worker, all_of_it=True)
                return
            self._begin(worker)

    @contextlib.contextmanager
    def _living(self, worker: Worker) -> Iterator[None]:
        """What the worker does until it ends or is killed."""
        try:
            with self.calls.life():
                yield
        except Crash:
            self.kill(worker, all_of_it=self.fate(f"{worker.key}/crash").random() < 0.5)

    def _begin(self, worker: Worker) -> None:
        request, fate = worker.request, self.fate(worker.key)
        assert request is not None
        assert worker.scratch is not None
        folder = WorkflowFolder(self.spool.workflows / worker.key.workflow_id)
        try:
            worker.log = open_attempt_log(folder.log_path(worker.key.task_id, worker.key.attempt))
        except (SpoolUnusable, OSError) as error:
            self._report(worker, News(worker.key, Seen.NOT_STARTED, problem=str(error)))
            return
        if worker.log is None or not InSpool(request, folder, worker.scratch).is_wanted():
            self._close_log(worker)
            self._report(worker, News(worker.key, Seen.LOST))
            return
        try:
            _, others = worker.targets.enter_context(taken(self.spool.locks, request.wanted))
            if others:
                raise SpoolUnusable(f"{others} is held by others")
            worker.room = Room(worker.scratch)
            worker.room.make(4096)
        except (SpoolUnusable, OSError) as error:
            self._close_log(worker)
            self._report(worker, News(worker.key, Seen.NOT_STARTED, problem=str(error)))
            return
        probe = request.argv[-1].endswith(f"/{PROBE}.nu")
        self.check(worker.key)
        self.trace.append(Begin(worker.key, self.boot))
        worker.begun, worker.stubborn = True, fate.random() < 0.2
        self.later(fate.choice([0.01, 0.2, 1.0, 3.0]), lambda: self._work_done(worker, probe))

    def _work_done(self, worker: Worker, probe: bool) -> None:
        """The operation has ended by itself: from here on its effect is there, whatever becomes of its worker."""
        if worker.log is None:
            return
        fate = self.fate(f"{worker.key}/outcome")
        outcome, error = self.ends(worker.key, fate), None
        if probe:
            outcome, error = self._probe(worker.key, fate)
        elif worker.cancelled:
            outcome = Outcome.CANCELLED
        elif outcome is Outcome.SUCCEEDED:
            task = (worker.key.workflow_id, worker.key.task_id)
            self.effects[task] = self.effects.get(task, 0) + 1
        if not worker.alive:
            self._close_log(worker)  # an orphan: nobody is left to publish its outcome
            return
        self.later(fate.choice([0.0, 0.0, 0.05]), lambda: self._publish(worker, outcome, error))

    def ends(self, key: Key, fate: random.Random) -> Outcome:
        """How an operation ends that is left alone."""
        return fate.choices([Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT], [8, 2, 1])[0]

    def _probe(self, key: Key, fate: random.Random) -> tuple[Outcome, TaskError | None]:
        if self.effects.get((key.workflow_id, key.task_id)):
            return Outcome.SUCCEEDED, None
        code = fate.choice(["work::not-found", "work::not-found", "work::no-network"])
        return Outcome.FAILED, TaskError(code)

    def _publish(self, worker: Worker, outcome: Outcome, error: TaskError | None) -> None:
        if worker.record is not None:
            return
        if not worker.alive or worker.scratch is None or worker.log is None:
            self._close_log(worker)
            return
        wall = self.wall()
        result = {"present": self.fate(f"{worker.key}/result").random() < 0.7}
        worker.record = OutcomeRecord(
            FORMAT, *worker.key, outcome=outcome, started_at=wall, ended_at=wall, error=error, result=result
        )
        self._put_outcome(worker)

    def _put_outcome(self, worker: Worker) -> None:
        """`execution.attempt.Attempts._publish`: on a full disk it is tried until there is room."""
        if not worker.alive:
            return
        with self._living(worker):
            try:
                self._write_outcome(worker)
            except SpoolUnusable as error:
                if isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT):
                    self.later(1.0, lambda: self._put_outcome(worker))
                    return
                self._close_log(worker)
                self._report(worker, News(worker.key, Seen.LOST, problem=str(error)))
                return
            assert worker.record is not None
            self._close_log(worker, worker.record.outcome)
            self._report(worker, News(worker.key, Seen.ENDED, worker.record))

    def _write_outcome(self, worker: Worker) -> None:
        assert worker.scratch is not None
        assert worker.record is not None
        assert worker.room is not None
        worker.room.make(4096)
        path = self.spool.workflow(worker.key.workflow_id).outcome_path(worker.key.task_id, worker.key.attempt)
        with files.opened(path.parent, os.O_DIRECTORY) as outcomes:
            worker.room.publish(path, encode(worker.record), outcomes)

    def _report(self, worker: Worker, news: News) -> None:
        worker.alive = False  # a real one would wait for its next command; here the next attempt hires anew
        if worker.room is not None:
            worker.room.close()
            worker.room = None
        if worker.scratch is not None:
            worker.scratch.close()
            worker.scratch = None
        worker.news(news)

    def _close_log(self, worker: Worker, outcome: Outcome | None = None) -> None:
        if worker.log is not None:
            os.close(worker.log)
            worker.log = None
            worker.targets.close()
            if worker.begun:
                self.trace.append(End(worker.key, outcome))

    def kill(self, worker: Worker, *, all_of_it: bool) -> None:
        """SIGKILL to a worker; `all_of_it` to what it runs as well."""
        worker.alive = False
        if worker.room is not None:
            if worker.room._descriptor >= 0:
                os.close(worker.room._descriptor)
            worker.room = None
        if worker.scratch is not None:
            os.close(worker.scratch.descriptor)
            worker.scratch = None
        if all_of_it or not worker.begun or worker.record is not None:
            self._close_log(worker)
        if worker.request is not None:
            worker.news(News(worker.key, Seen.LOST, problem="its worker died"))

    def cancel(self, worker: Worker) -> None:
        """TERM to a worker: it ends what it runs."""
        worker.cancelled = True
        if worker.begun and worker.alive:
            self.later(1.0 if worker.stubborn else 0.05, lambda: self._publish(worker, Outcome.CANCELLED, None))

    # What recovery sees of processes

    def holders(self, log: Path) -> list[Process]:
        """Stands in for `ending.holders`: the orphans of an attempt."""
        logged = [(worker, worker.log) for worker in self.workers.values() if worker.log is not None]
        found = [worker for worker, held in logged if os.path.samestat(os.fstat(held), os.stat(log))]
        return [Process(self.boot_id(), worker.pid, 1) for worker in found]

    def send_signal(self, process: Process, number: signal.Signals) -> bool:
        """Stands in for `processes.send_signal`."""
        worker = next((each for each in self.workers.values() if each.pid == process.pid), None)
        if worker is None or process.boot_id != self.boot_id():
            return False
        if worker.alive and number is not signal.SIGCONT:  # none of them is ever stopped
            assert number is signal.SIGTERM, "a living worker is never killed"
            self.cancel(worker)
        elif number is signal.SIGKILL or (number is signal.SIGTERM and not worker.stubborn):
            self._close_log(worker)
        return True

    def end_holders(self, log: Path, _grace_seconds: float) -> tuple[int, ...]:
        """Stands in for `ending.end_holders`."""
        found = self.holders(log)
        for process in found:
            self.send_signal(process, signal.SIGKILL)
        return tuple(process.pid for process in found)

    def power_cut(self) -> None:
        """Every process ends; the host comes up again."""
        for worker in self.workers.values():
            worker.news = lambda news: None
            self.kill(worker, all_of_it=True)
        self._events.clear()
        self.boot += 1
        self.boottime = 5.0
        self.elapsed += 20.0

    def close(self) -> None:
        for worker in self.workers.values():
            with contextlib.suppress(OSError):
                self.kill(worker, all_of_it=True)
