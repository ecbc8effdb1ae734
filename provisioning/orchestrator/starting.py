"""Starting an attempt: what it calls, whether it may now, the record of its start, and its worker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from itertools import islice

from provisioning.config import Config
from provisioning.core.identifiers import LOCAL, SLURM, Executing
from provisioning.core.scheduler import Now
from provisioning.core.workflow import TaskCheckpoint, TaskError
from provisioning.errors import ProvisioningError
from provisioning.execution.executor import Ahead, Key
from provisioning.execution.executors import Executors
from provisioning.orchestrator.held import Held
from provisioning.orchestrator.installed import Installed
from provisioning.orchestrator.limits import Limits
from provisioning.orchestrator.recovery import cancel_adopted
from provisioning.orchestrator.work import (
    GROUP,
    Surroundings,
    Work,
    attempt_request,
    called,
    executor_of,
    holds_something,
    wanted_by,
    work_of,
)
from provisioning.storage.limits import Wanted
from provisioning.storage.spool import Spool

NO_CLUSTER = TaskError(
    "provisioning::slurm::not-found", "it is for Slurm, and the configuration names no cluster", "see: slurm.directory"
)


class NothingStarts(Exception):
    """The host has no room for another process, or Nushell has gone: that is no workflow's fault."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Starter:
    """Starts and ends attempts in their executors, and takes on those that were started before."""

    def __init__(self, spool: Spool, config: Config, among: Executors, installed: Installed, limits: Limits) -> None:
        self._spool = spool
        self._config = config
        self._executors = among
        self._installed = installed
        self._limits = limits
        self._surroundings = Surroundings(spool, config)
        self._guess_is_old = True

    def start(self, held: Held, key: Key, now: Now) -> None:
        """Start the attempt, or record why its task is skipped, or have it wait for a target or a group."""
        work = work_of(held, key.task_id)
        if work.skip:
            held.skip(key.task_id, work.skip, now)
            return
        where = executor_of(held, key.task_id, work, self._config)
        if where == SLURM and not self._executors.has_slurm:
            where, work = LOCAL, work._replace(refusal=NO_CLUSTER)
        work = work._replace(wanted=wanted_by(held, key.task_id, work, self._config))
        waiting, wanted = (key.workflow_id, key.task_id), (*work.wanted, *self._slot(where))
        if missing := self._limits.in_the_way(waiting, wanted):
            self._limits.wait(waiting, wanted)
            held.schedule.park(key.task_id, missing)
            return
        try:
            nu = self._installed.nu()
            argv = () if work.wanted else self._surroundings.argv(nu, held.plan.nulib, work.operation.name)
            executor = self._executors.named(where)
            worker = executor.assign(key, argv)
        except (ProvisioningError, OSError) as error:
            raise NothingStarts(error) from error
        held.start(key.task_id, worker, now, work.recorded, executor=where)
        self._limits.take(key, wanted)
        self._guess_is_old = True
        executor.start(attempt_request(held, key, work, surroundings=self._surroundings, config=self._config, nu=nu))

    def _slot(self, where: Executing) -> tuple[Wanted, ...]:
        """A slot of that executor, where there are several: it is waited for like room in a group of this process."""
        if not self._executors.has_slurm:
            return ()
        settings = self._config.slurm if where == SLURM else self._config.orchestrator
        return (Wanted(f"slots:{where}", room=settings.slots),)

    def take_on(self, held: Held) -> None:
        """Have every attempt that is under way in the workflow seen through."""
        for checkpoint in held.running():
            self.watch(held, checkpoint)

    def watch(self, held: Held, checkpoint: TaskCheckpoint) -> None:
        """Have the task's latest attempt seen through, which no worker of this process answers for."""
        key, last = held.key(checkpoint), checkpoint.attempts[-1]
        if last.executor == LOCAL or held.folder.outcome_path(*key[1:]).exists():  # all the rest is a look at the disk
            held.watched.add(key)
            return
        work = Work(called(held, key.task_id), {})
        groups = tuple(each for each in wanted_by(held, key.task_id, work, self._config) if each.name.startswith(GROUP))
        self._limits.take(key, (*groups, *self._slot(SLURM)))
        self._executors.slurm().adopt(key, last.worker, groups)

    def end(self, held: Held) -> None:
        """Have every attempt that is under way in the workflow ended."""
        for checkpoint in held.running():
            if held.key(checkpoint) in held.watched:
                cancel_adopted(self._spool, checkpoint)
            else:
                self._executors.cancel(held.key(checkpoint))

    def guess_again(self) -> None:
        """What will probably start next may have changed."""
        self._guess_is_old = True

    def prepare(self, those_held: Iterable[Held]) -> None:
        """Have processes wait for what will probably start next. It is a guess: where it cannot be made, none wait."""
        if not self._guess_is_old:
            return
        self._guess_is_old = False
        settings = self._config.orchestrator
        most = min(settings.standby_processes, settings.slots)
        likely = list(islice(((held, task_id) for held in those_held for task_id in held.likely(most)), most))
        if not likely:
            return
        with contextlib.suppress(ProvisioningError, OSError):  # whoever needs one starts it then, and tells
            nu, same = self._installed.nu(), self._surroundings
            calls = [(held.plan.nulib, called(held, task_id), held.tasks[task_id]) for held, task_id in likely]
            self._executors.prepare(
                [
                    Ahead(same.argv(nu, digest, operation.name), same.environment)
                    for digest, operation, task in calls
                    if not holds_something(task, operation)  # else it needs what is inherited at the start
                ]
            )
