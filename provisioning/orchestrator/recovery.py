"""What became of an attempt that no worker of ours answers for: its outcome, its lock and its worker say.

The order of the questions is the guarantee: an outcome counts before anything else; a held lock with
a living worker means that the attempt goes on and is adopted; a held lock without its worker means
processes that must end first; and only under the lock itself is an attempt called interrupted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal

from provisioning.clock import boot_id
from provisioning.config import Config
from provisioning.core import attempts
from provisioning.core.attempts import UNKNOWN_BOOT
from provisioning.core.identifiers import SLURM, Process, Resident
from provisioning.core.scheduler import Now
from provisioning.core.states import ENDED_WORKFLOWS, TaskState
from provisioning.core.workflow import Attempt, OutcomeRecord, Task, TaskCheckpoint
from provisioning.errors import SpoolUnusable
from provisioning.execution.ending import end_holders, holders, signal_group
from provisioning.execution.executor import News, Seen
from provisioning.orchestrator.held import Held
from provisioning.processes import group_members, lives_in, send_signal, starttime
from provisioning.storage import files, reading
from provisioning.storage.checkpoint import Damaged, load
from provisioning.storage.logs import attempt_is_alive, lock_ended_attempt
from provisioning.storage.naming import naming
from provisioning.storage.spool import Spool

_log = logging.getLogger(__name__)

LATE_SECONDS = 1.0
"""After its deadline and grace, an attempt that goes on is late."""


def take_news(  # noqa: PLR0913 - what settle takes, and the news
    spool: Spool, config: Config, held: Held, checkpoint: TaskCheckpoint, news: News, now: Now
) -> bool:
    """Record what a worker of ours said of the task's latest attempt; False where that is still to be found out."""
    if news.seen is Seen.NOT_STARTED:
        _log.warning("%s was not started: %s", news.key, news.problem)
        _record(held, attempts.not_started(checkpoint, now, news.problem), now)
        return True
    if news.seen is Seen.LOST and checkpoint.attempts[-1].executor == SLURM:
        _log.warning("%s was lost: %s", news.key, news.problem)
        _record(held, attempts.interrupted(checkpoint, held.tasks[checkpoint.task_id], now, news.problem), now)
        return True
    if news.seen is not Seen.ENDED or news.record is None:
        _log.warning("%s was lost: %s", news.key, news.problem)
        return settle(spool, config, held, checkpoint, now)
    _ended(held, checkpoint, news.record, now)
    if news.record.leftovers:
        pids = ", ".join(map(str, news.record.leftovers))
        _log.warning("%s left processes behind, which were ended: %s", news.key, pids)
    return True


def find_outcomes(held: Held, now: Now) -> None:
    """After a power cut, call those attempts running again that have an outcome and no record of their start.

    Not every start is synced, and outcomes are: what has one must not be done again.
    """
    if held.checkpoint.boot_id == now.boot_id or held.checkpoint.state in ENDED_WORKFLOWS:
        return
    for checkpoint in held.checkpoints.values():
        if checkpoint.last is not None and checkpoint.last.boot_id == UNKNOWN_BOOT:  # it may be known by its outcome
            held.folder.save_task(checkpoint, "task starting, after a crash of the host")
    for task_id, number in held.folder.outcomes():
        checkpoint = held.task_checkpoint(task_id)
        known = checkpoint.attempts[-1].number if checkpoint.attempts else 0
        goes_on = checkpoint.state in (TaskState.PENDING, TaskState.RUNNING) and not checkpoint.held
        if task_id in held.tasks and number > known and goes_on:
            before = held.folder.outcome(task_id, known) if known else None
            held.record(attempts.known_by_outcome(checkpoint, number, now, before), now)


def look_at(spool: Spool, config: Config, held: Held, now: Now) -> None:
    """Find out about each attempt that no worker of this process runs."""
    for key in sorted(held.watched):
        checkpoint = held.checkpoints[key.task_id]
        recorded = checkpoint.state is not TaskState.RUNNING or held.key(checkpoint) != key
        if recorded or settle(spool, config, held, checkpoint, now):
            held.watched.discard(key)
            held.ending.pop(key, None)


def settle(spool: Spool, config: Config, held: Held, checkpoint: TaskCheckpoint, now: Now) -> bool:
    """Find out what became of the task's latest attempt and record it; False while it goes on or is being ended."""
    last = checkpoint.attempts[-1]
    log = held.folder.log_path(checkpoint.task_id, last.number)
    worker = spool.tmp / last.worker
    if record := held.folder.outcome(checkpoint.task_id, last.number):
        if not reading.scratch_is_held(worker) and attempt_is_alive(log):
            end_holders(log, 0.2)
        _make_sure_of(held, record)
        _ended(held, checkpoint, record, now)
        return True
    if reading.scratch_is_held(worker):
        if attempt_is_alive(log) or _has_children(spool, last.worker):  # the latter: it has let go of its log
            if _is_late(held.tasks[checkpoint.task_id], last, now, config.limits.grace_seconds):
                _tell_worker(spool, checkpoint, signal.SIGCONT)  # be it stopped: it alone can end its attempt
            if held.gate:
                held.gate.adopted(str(held.key(checkpoint)))
            return False  # adopted: it goes on
    elif attempt_is_alive(log) or _has_children(spool, last.worker):
        _end_orphans(spool, config, held, checkpoint, now)
        return False
    return _interrupt(held, checkpoint, now)


def _ended(held: Held, checkpoint: TaskCheckpoint, record: OutcomeRecord, now: Now) -> None:
    task = held.tasks[checkpoint.task_id]
    asked = {"cancelling": held.checkpoint.cancelling, "stopping": held.stopping}
    _record(held, attempts.ended(checkpoint, task, record, now, **asked), now)


def _record(held: Held, after: TaskCheckpoint, now: Now) -> None:
    """Record that the task's latest attempt has ended, and have it counted."""
    held.record(after, now)
    if held.gate:
        held.gate.attempted(held.tasks[after.task_id].operation, after)


def _make_sure_of(held: Held, record: OutcomeRecord) -> None:
    """Make an outcome that was found durable before anything follows from it: its worker may have died before that."""
    path = held.folder.outcome_path(record.task_id, record.attempt)
    with naming(path, "sync"):
        files.sync_dir(path.parent)


def _interrupt(held: Held, checkpoint: TaskCheckpoint, now: Now) -> bool:
    """Call the attempt interrupted while holding its lock, so that a late worker finds it given up."""
    last = checkpoint.attempts[-1]
    log = held.folder.log_path(checkpoint.task_id, last.number)
    locked = lock_ended_attempt(log)
    if locked is None:
        return False
    descriptor, without_log = locked  # a worker makes the log before anything else
    never_began = without_log and last.boot_id == now.boot_id
    try:
        if record := held.folder.outcome(checkpoint.task_id, last.number):
            _make_sure_of(held, record)
            _ended(held, checkpoint, record, now)
        elif never_began:
            _record(held, attempts.not_started(checkpoint, now, "its worker never began"), now)
        else:
            why = "the host went down" if last.boot_id != now.boot_id else "its worker died"
            _record(held, attempts.interrupted(checkpoint, held.tasks[checkpoint.task_id], now, why), now)
    finally:
        os.close(descriptor)
    return True


def _end_orphans(spool: Spool, config: Config, held: Held, checkpoint: TaskCheckpoint, now: Now) -> None:
    """Tell what is left of an attempt without a worker to end; after the grace, make it."""
    key = held.key(checkpoint)
    number = None
    if key not in held.ending:
        held.ending[key] = now.boottime + config.limits.grace_seconds
        number = signal.SIGTERM
    elif now.boottime >= held.ending[key]:
        number = signal.SIGKILL
    if number is None:
        return
    last = checkpoint.attempts[-1]
    if (group := _group(spool, last.worker)) is not None:
        signal_group(group, number)
    for process in holders(held.folder.log_path(checkpoint.task_id, last.number)):
        send_signal(process, number)
        send_signal(process, signal.SIGCONT)


def workers_with_children(spool: Spool) -> list[str]:
    """The scratch folders whose workers' attempts have processes left, or may have, whether the worker lives or not."""
    return [name for name in reading.list_names(spool.tmp) if _may_have_children(spool, name)]


def _may_have_children(spool: Spool, worker: str) -> bool:
    try:
        return _read_group(spool, worker) is not None
    except SpoolUnusable as error:
        _log.warning("what is in the scratch folder %s cannot be told: %s", worker, error)
        return True


def _group(spool: Spool, worker: str) -> int | None:
    """As `_read_group`, and None where it cannot be read."""
    with contextlib.suppress(SpoolUnusable):
        return _read_group(spool, worker)
    return None


def _read_group(spool: Spool, worker: str) -> int | None:
    """The process group of a worker's latest attempt, while something of it lives.

    Its number and that of its session, the worker's, would both have to have gone to others for it to be a stranger's.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, Damaged):
        leader = load(spool.tmp / worker / "group", Process)
        session = _process(spool, worker).pid
        ours = leader.boot_id == boot_id() and starttime(leader.pid) in (None, leader.starttime)
        if ours and any(member.session == session for member in group_members(leader.pid)):
            return leader.pid
    return None


def _process(spool: Spool, worker: str) -> Process:
    """The worker whose scratch folder that is. FileNotFoundError where it says nothing, or said it elsewhere.

    Locks are not copied with a spool, but what the processes of the original say is, and they may live.
    """
    folder = spool.tmp / worker
    said = load(folder / "process", Resident)
    if not lives_in(said, os.stat(folder)):
        raise FileNotFoundError(folder / "process")
    return said


def _has_children(spool: Spool, worker: str) -> bool:
    return _group(spool, worker) is not None


def cancel_adopted(spool: Spool, checkpoint: TaskCheckpoint) -> None:
    """Have the worker of an attempt that is not ours end it, be it stopped."""
    _tell_worker(spool, checkpoint, signal.SIGTERM, signal.SIGCONT)


def _tell_worker(spool: Spool, checkpoint: TaskCheckpoint, *numbers: signal.Signals) -> None:
    with contextlib.suppress(FileNotFoundError, Damaged):
        worker = _process(spool, checkpoint.attempts[-1].worker)
        for number in numbers:
            send_signal(worker, number)


def _is_late(task: Task, attempt: Attempt, now: Now, grace_seconds: float) -> bool:
    """Whether its worker should have ended it by now. By the wall clock: to be told too early does it no harm."""
    if task.timeout_seconds is None:
        return False
    return (now.wall - attempt.started_at).total_seconds() > task.timeout_seconds + grace_seconds + LATE_SECONDS
