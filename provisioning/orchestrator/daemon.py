"""The orchestrator as a process: its lock, its signals, its log, and how others start and stop it."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from provisioning import __version__
from provisioning.clock import boottime
from provisioning.config import Config, Supervisor
from provisioning.errors import GaveUp, OrchestratorUnusable, ProvisioningError, SpoolUnusable
from provisioning.execution.command import Detached
from provisioning.execution.nulib import Nulib
from provisioning.execution.pool import Pool
from provisioning.execution.slurm.executor import cluster
from provisioning.orchestrator.announcement import Announcement
from provisioning.orchestrator.claim import instant
from provisioning.orchestrator.complaints import Complaints, OnFailure
from provisioning.orchestrator.hooks import Hooks
from provisioning.orchestrator.installed import Installed
from provisioning.orchestrator.intake import Intake
from provisioning.orchestrator.loop import Orchestrator
from provisioning.orchestrator.metering import Meter
from provisioning.orchestrator.notify import Notifier
from provisioning.orchestrator.oversight import Oversight
from provisioning.orchestrator.presence import LOOK_SECONDS, Presence
from provisioning.orchestrator.recovery import workers_with_children
from provisioning.orchestrator.watcher import Watcher
from provisioning.processes import identity, is_alive, send_signal
from provisioning.storage import drop, files, logs
from provisioning.storage.opening import DOORS
from provisioning.storage.spool import Spool

_log = logging.getLogger(__name__)

START_SECONDS = 20.0
"""So long a started orchestrator may take until it has its lock."""
DRAIN, DRAIN_FULLY, END = signal.SIGTERM, signal.SIGUSR1, signal.SIGQUIT
"""Stop at the drain deadline; stop when nothing runs any more; end what runs and stop."""
HOOK_SECONDS = 5.0
"""So long an orchestrator that stops lets programs of [notify] end; what is not told yet, its successor tells."""
END_SECONDS = 10.0
"""So long beyond its grace what is being ended may take: what is left then counts as interrupted by a crash."""


class _Signals:
    """Signals as a readable descriptor and the latest of them: a handler does nothing else."""

    def __init__(self) -> None:
        self.descriptor, end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.asked: signal.Signals | None = None
        for number in (DRAIN, DRAIN_FULLY, END, signal.SIGINT):
            signal.signal(number, self._note)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.set_wakeup_fd(end, warn_on_full_buffer=False)

    def _note(self, number: int, _frame: object) -> None:
        self.asked = signal.Signals(number)

    def wait(self, seconds: float) -> None:
        """Until a signal comes, or so long."""
        select.select([self.descriptor], [], [], seconds)
        self.drain()

    def drain(self) -> None:
        """Make the descriptor quiet again."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.descriptor, 64):
                pass


def run(  # noqa: PLR0913 - what it works, how long, and who hears of it
    spool: Spool,
    config: Config,
    load_nulib: Callable[[], Nulib],
    *,
    until_empty: bool = False,
    max_wait_seconds: float = 0.0,
    lock_wait_seconds: float | None = None,
    on_failure: OnFailure | None = None,
) -> int:
    """Work the spool until told to stop, or until nothing can start; the exit code.
    Only one process at a time is the orchestrator of a spool; until-empty workers may run beside it, but for those
    with `lock_wait_seconds`: they want to be that one, and where another is for so long, that is all they say.
    """
    os.chdir("/")  # the folder it was started in may go away
    load_nulib()  # without Nushell there is nothing to do here: say so at once
    presence = Presence(spool.root)  # before the lock: it must be the lock of this one
    beside = until_empty and lock_wait_seconds is None
    try:
        lock = None if beside else spool.take_orchestrator_lock(wait_seconds=lock_wait_seconds or 0.0)
    except OrchestratorUnusable:
        if until_empty:
            return GaveUp.exit_code
        raise
    logs.log_to(spool.logs / "orchestrator.log")
    signals, complaints = _Signals(), Complaints(on_failure)
    pool = Pool(spool, config.orchestrator.slots, config.orchestrator.idle_worker_seconds)
    orchestrator = Orchestrator(spool, config, pool, load_nulib, slurm=cluster(spool, config), complaints=complaints)
    oversight = spool.gate if isinstance(spool.gate, Oversight) else Oversight(spool, config)
    intake = _open_doors(spool, config, load_nulib, oversight)
    watcher = Watcher(lambda: [spool.incoming, spool.requests, spool.drop, *drop.folders(spool)])
    announcement = meter = None
    if lock is not None:
        _tell_start(spool, config, oversight)
        announcement = Announcement(spool, config.orchestrator)  # what could end this start has been done
        meter = Meter(spool, config, oversight, orchestrator)
    hooks, status = Hooks(spool, config), partial(_status, spool, config.orchestrator.slots, pool)
    notifier = Notifier(Supervisor() if until_empty else config.supervisor)
    around = _Around(signals, presence, watcher, announcement, notifier, intake, meter, hooks, status)
    try:
        orchestrator.tick()  # finds what dead processes left under way; only then may the rest of theirs go
        files.sweep_scratch(spool.tmp, workers_with_children(spool))
        notifier.ready(status())
        _work(orchestrator, around, max_wait_seconds if until_empty else None)
        notifier.stopping("starts nothing more; what runs is being finished, or goes on for the next start to adopt")
        _drain(orchestrator, around, config)
        if presence.is_here():
            hooks.finish(config.notify.seconds if until_empty else HOOK_SECONDS)
    finally:
        orchestrator.close()
        intake.close()
        hooks.close()
        watcher.close()
        if lock is not None:
            _tell_end(presence, oversight)
        spool.close()
        if lock is not None:
            lock.release()
    return 1 if until_empty and complaints.failed else 0


def _tell_start(spool: Spool, config: Config, oversight: Oversight) -> None:
    """Note that the orchestrator begins, with which configuration."""
    for name in oversight.orchestrating(began=True):
        _log.warning("the %s file has changed since the last start", name)
    _log.info("orchestrator %s works %s with %d slots", __version__, spool.root, config.orchestrator.slots)


def _tell_end(presence: Presence, oversight: Oversight) -> None:
    """Note that it has ended."""
    _log.info("orchestrator stopped")
    with contextlib.suppress(ProvisioningError):
        if presence.is_same():  # the audit log of another spool is not ours to write
            oversight.orchestrating(began=False)


def _open_doors(spool: Spool, config: Config, load_nulib: Callable[[], Nulib], oversight: Oversight) -> Intake:
    """Make the doors ready, and say what they take; Refused where somebody else could change what they trust."""
    for name in DOORS:
        files.make_dir(spool.root / name)
    oversight.trust.refuse_unsafe()
    for text in oversight.trust.warnings([operator.name for operator in drop.operators(spool)[0]]):
        _log.warning("%s", text)
    return Intake(spool, config, Installed(load_nulib, boottime).nulib, oversight)


def _status(spool: Spool, slots: int, pool: Pool) -> str:
    """What the process does now."""
    busy = slots - pool.free_slots()
    return f"works {spool.root} with {slots} slots" + (f", {busy} of them busy" if busy else "")


class _Around(NamedTuple):
    """What the process minds besides the workflows."""

    signals: _Signals
    presence: Presence
    watcher: Watcher
    announcement: Announcement | None
    """None of one that is not the orchestrator."""
    notifier: Notifier
    intake: Intake
    meter: Meter | None
    """None of one that is not the orchestrator, as `announcement`."""
    hooks: Hooks
    status: Callable[[], str]
    """What it does now, on one line."""


def _work(orchestrator: Orchestrator, around: _Around, max_wait: float | None) -> None:
    """Tick until a signal comes or, with `max_wait`, until nothing can start within so many seconds.

    Then also what is in the way of all starts for so long ends it: it is raised.
    """
    signals, presence, watcher, announcement, notifier, intake, meter, hooks, _ = around
    while signals.asked is None:
        notifier.alive()
        if max_wait is not None:
            presence.insist()
        elif not presence.is_here():
            signals.wait(LOOK_SECONDS)
            continue
        if announcement is not None:
            announcement.keep()
        if came := _take_drops(intake, insists=max_wait is not None):
            orchestrator.scan_soon(came)
        orchestrator.tick()
        if meter is not None:
            meter.step(instant())
        hooks.look()
        notifier.tell(around.status())
        if max_wait is not None and (error := orchestrator.stuck(max_wait)):
            raise error
        if max_wait is not None and not orchestrator.running and not intake.busy():
            at = orchestrator.next_start()
            if at is None or at > boottime() + max_wait:
                return
        later = min(intake.next_due(), hooks.next_due(), meter.next_due() if meter is not None else math.inf)
        due = max(0.0, min(60.0, notifier.at_most, later - boottime()))
        others = [watcher.descriptor, signals.descriptor, *intake.waitables(), *hooks.waitables()]
        ready = orchestrator.wait(others, at_most=due)
        if watcher.descriptor in ready:
            arrived = watcher.drain()
            elsewhere = intake.heed(arrived)
            if elsewhere or not arrived:
                orchestrator.scan_soon(elsewhere)
        watcher.renew()


def _take_drops(intake: Intake, *, insists: bool) -> list[str]:
    """The paths of what came in by the doors. What the disk refuses is told and tried again, unless one `insists`."""
    try:
        return intake.step(instant())
    except SpoolUnusable:
        if insists:
            raise
        return []


def _drain(orchestrator: Orchestrator, around: _Around, config: Config) -> None:
    """Start nothing more; let what runs finish until the deadline, or end it, as the signal said."""
    signals, presence, _, announcement, notifier, _, meter, hooks, _ = around
    orchestrator.draining = True
    if announcement is not None and presence.is_here():
        announcement.drain()
    handled: signal.Signals | None = None
    deadline = boottime() + config.orchestrator.drain_seconds
    while orchestrator.running:
        notifier.alive()
        here = presence.is_here()
        if signals.asked is not handled and (here or signals.asked is not END):
            handled = signals.asked
            deadline = boottime() + _patience_seconds(handled, config)
            if handled is END:
                _log.info("ending what runs")
                orchestrator.end_running()
        if boottime() >= deadline:
            _log.info("the drain deadline has come: what still runs goes on, for the next start to adopt")
            return
        if not here:
            signals.wait(LOOK_SECONDS)
            continue
        orchestrator.wait([signals.descriptor], at_most=max(0.0, min(1.0, deadline - boottime())))
        signals.drain()
        if presence.is_here():
            if announcement is not None:
                announcement.keep()
            orchestrator.tick()
            if meter is not None:
                meter.step(instant())
            hooks.look()


def _patience_seconds(asked: signal.Signals | None, config: Config) -> float:
    """So long what runs may go on after this signal."""
    if asked is DRAIN_FULLY:
        return math.inf
    return config.limits.grace_seconds + END_SECONDS if asked is END else config.orchestrator.drain_seconds


def start(spool: Spool, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Start this program with these arguments as the orchestrator, in the background; its pid, once it has its lock."""
    if record := spool.running_orchestrator():
        raise OrchestratorUnusable(
            f"{spool.root} has an orchestrator already: pid {record.process.pid}, {record.state(spool.root)}",
            hint="see: provisioning orchestrator status",
        )
    with contextlib.closing(Detached(arguments, environment)) as child:
        deadline = boottime() + START_SECONDS
        while boottime() < deadline and not child.ended():
            said = spool.orchestrator_record()
            if said and said.process.pid == child.pid:
                return child.pid
            select.select([], [], [], 0.02)
        raise OrchestratorUnusable(
            f"the orchestrator did not start: {child.said() or 'it said nothing'}",
            hint="try it in the foreground: provisioning orchestrator run",
        )


def stop(spool: Spool, *, number: signal.Signals, timeout_seconds: float) -> bool:
    """Signal the orchestrator and wait until it has ended; False where none was running."""
    record = spool.running_orchestrator()
    if record is None or not send_signal(record.process, number):
        return False
    deadline = boottime() + timeout_seconds
    try:
        descriptor = os.pidfd_open(record.process.pid)
    except ProcessLookupError:
        return True
    try:
        while is_alive(record.process):
            if not select.select([descriptor], [], [], max(0.0, deadline - boottime()))[0]:
                raise GaveUp(
                    f"the orchestrator, pid {record.process.pid}, has not stopped within {timeout_seconds:g} s",
                    hint="what runs is being finished; see: provisioning orchestrator status",
                )
            if identity(record.process.pid) is None:
                break
    finally:
        os.close(descriptor)
    return True
