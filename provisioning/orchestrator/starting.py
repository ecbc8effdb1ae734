"""Starting an attempt: what it calls, whether it may now, the record of its start, and its worker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from itertools import islice

from provisioning.config import Config
from provisioning.core.scheduler import Now
from provisioning.errors import ProvisioningError
from provisioning.execution.executor import Ahead, Executor, Key
from provisioning.execution.process import process_environment
from provisioning.orchestrator.held import Held
from provisioning.orchestrator.installed import Installed
from provisioning.orchestrator.limits import Limits
from provisioning.orchestrator.work import attempt_request, entry_argv, holds_something, wanted_by, work_of
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
        self._environment = process_environment(config.environment)

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
            argv = () if work.wanted else entry_argv(held, key.task_id, self._spool, nu)
            worker = self._executor.assign(key, argv)
        except (ProvisioningError, OSError) as error:
            raise NothingStarts(error) from error
        held.start(key.task_id, worker, now, work.recorded)
        self._limits.take(key, work.wanted)
        self._executor.start(attempt_request(held, key, work, spool=self._spool, config=self._config, nu=nu))

    def prepare(self, those_held: Iterable[Held]) -> None:
        """Have processes wait for what will probably start next. It is a guess: where it cannot be made, none wait."""
        most = self._config.orchestrator.standby_processes
        likely = list(islice(((held, task_id) for held in those_held for task_id in held.likely(most)), most))
        if not likely:
            return
        with contextlib.suppress(ProvisioningError, OSError):  # whoever needs one starts it then, and tells
            nu = self._installed.nu()
            self._executor.prepare(
                [
                    Ahead(entry_argv(held, task_id, self._spool, nu), self._environment)
                    for held, task_id in likely
                    if not holds_something(held, task_id)  # else it needs what is inherited at the start
                ]
            )
