"""Starting an attempt: what it calls, whether it may now, the record of its start, and its worker."""

from __future__ import annotations

from provisioning.config import Config
from provisioning.core.scheduler import Now
from provisioning.errors import ProvisioningError
from provisioning.execution.executor import Executor, Key
from provisioning.orchestrator.held import Held
from provisioning.orchestrator.installed import Installed
from provisioning.orchestrator.limits import Limits
from provisioning.orchestrator.work import argv_after, attempt_request, entry_argv, wanted_by, work_of
from provisioning.storage.spool import Spool


class NothingStarts(Exception):
    """The host has no room for another process, or Nushell has gone: that is no workflow's fault."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Starter:
    """Starts attempts in an executor, one at a time."""

    def __init__(self, spool: Spool, config: Config, executor: Executor, installed: Installed, limits: Limits) -> None:
        self._spool = spool
        self._config = config
        self._executor = executor
        self._installed = installed
        self._limits = limits

    def start(self, held: Held, key: Key, now: Now) -> None:
        """Start the attempt, or record why its task is skipped, or have it wait for a target or a group."""
        work = work_of(held, key.task_id)
        if work.skip:
            held.skip(key.task_id, work.skip, now)
            return
        work = work._replace(wanted=wanted_by(held, key.task_id, work, self._config))
        waiting = (key.workflow_id, key.task_id)
        if missing := self._limits.in_the_way(waiting, work.wanted):
            self._limits.wait(waiting, work.wanted)
            held.schedule.park(key.task_id, missing)
            return
        try:
            nu = self._installed.nu()
            worker = self._executor.assign(key, entry_argv(held, key.task_id, self._spool, nu))
        except (ProvisioningError, OSError) as error:
            raise NothingStarts(error) from error
        ahead = self._executor.waiting()
        most = self._config.orchestrator.standby_processes
        then = argv_after(held, key.task_id, ahead, self._spool, nu) if ahead < most else ()
        held.start(key.task_id, worker, now, work.recorded)
        self._limits.take(key, work.wanted)
        self._executor.start(attempt_request(held, key, work, then, spool=self._spool, config=self._config, nu=nu))
