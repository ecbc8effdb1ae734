"""A trial of crashes: real orchestrators on a small workflow, each killed at another of its writes; what follows."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from provisioning.config import Disk
from provisioning.core import manifest
from provisioning.core.catalogue import Catalogue
from provisioning.core.locate import Limits
from provisioning.core.states import TaskState, WorkflowState
from provisioning.core.tasks import Sources
from provisioning.core.workflow import Retry, Task, Workflow
from provisioning.errors import GaveUp, SpoolUnusable
from provisioning.execution.command import Detached
from provisioning.storage import files, reading
from provisioning.storage.check import check
from provisioning.storage.disk import refuse_below
from provisioning.storage.points import WritePoints
from provisioning.storage.spool import Spool
from provisioning.storage.submission import submit

RUN_SECONDS = 60.0
"""So long one orchestrator may take for the workflow, which it needs a second for."""
MARKS = ("first", "second", "last")
"""The tasks that must happen once: none of them is idempotent."""


class Found(NamedTuple):
    """What one killed orchestrator and the next one have left."""

    killed: bool
    lost: int
    """Tasks that were not done, or not recorded as the workflow says."""
    doubled: int
    """Tasks that were done more than once."""
    problems: int
    """What `spool check` names."""


class Trial:
    """Spools in a folder of their own, and the orchestrators that die on them."""

    def __init__(
        self,
        folder: Path,
        catalogue: Catalogue,
        command: Callable[[Path, int], list[str]],
        environment: Mapping[str, str],
        *,
        disk: Disk,
    ) -> None:
        """`command` is what to start for a spool and the write to die at, of which 0 is none.

        `disk` says whether it may be a network's, and what must be free for the trial to go on.
        """
        self._folder = folder
        self._catalogue = catalogue
        self._command = command
        self._environment = environment
        self._disk = disk

    def count(self) -> int:
        """The writes of an orchestrator that nobody kills: so many points there are to die at."""
        spool, marks = self._prepare("undisturbed")
        try:
            with self._work(spool, 0) as child:
                said = child.said().splitlines()
            found = self._look(spool, marks, killed=False)
            if any(found) or not said or not said[-1].isdigit():
                raise SpoolUnusable(
                    f"the workflow does not end as it should even undisturbed: {found}, {' '.join(said)[:200]}",
                    hint="see: provisioning selftest mark, provisioning orchestrator health",
                )
            return int(said[-1])
        finally:
            self._remove(spool)

    def points(self, numbers: Iterable[int]) -> Iterator[Found]:
        """Kill an orchestrator at each of these writes, start another one, and look."""
        for number in numbers:
            spool, marks = self._prepare(str(number))
            try:
                with self._work(spool, number) as child:
                    killed = child.wait(0) == -signal.SIGKILL
                with self._work(spool, 0):
                    pass
                yield self._look(spool, marks, killed=killed)
            finally:
                self._remove(spool)

    def _prepare(self, name: str) -> tuple[Spool, Path]:
        """A spool with the workflow in it, and the file that its tasks mark."""
        folder = self._folder / name
        spool, marks = Spool.create(folder / "spool", network=self._disk.network), folder / "marks"
        refuse_below(spool.root, self._disk)
        submit(
            manifest.write(_workflow(marks), form="json"),
            form="json",
            file="trial",
            spool=spool,
            catalogue=self._catalogue,
            operator="selftest",
            door="cli",
            limits=Limits(),
            sources=Sources(),
        )
        return spool, marks

    @contextlib.contextmanager
    def _work(self, spool: Spool, die_at: int) -> Iterator[Detached]:
        """Work the spool in a process of its own until it ends or dies; the process, of which nothing runs any more."""
        with contextlib.closing(Detached(self._command(spool.root, die_at), self._environment)) as child:
            if child.wait(RUN_SECONDS) is None:
                child.kill()
                raise GaveUp(
                    f"an orchestrator has not ended within {RUN_SECONDS:g} s in {spool.root}",
                    hint="the machine may be too busy: try again later",
                )
            yield child

    def _look(self, spool: Spool, marks: Path, *, killed: bool) -> Found:
        lines = reading.read_regular(marks, 1 << 20).decode().splitlines() if marks.exists() else []
        lost = sum(lines.count(task) == 0 for task in MARKS)
        doubled = sum(lines.count(task) > 1 for task in MARKS)
        for workflow_id in spool.workflow_ids():
            folder = spool.find(workflow_id)
            checkpoint = folder.workflow()
            tasks = {task.task_id: task for task in folder.tasks()}
            lost += checkpoint is None or checkpoint.state is not WorkflowState.FAILED
            lost += sum(name not in tasks or tasks[name].state is not TaskState.SUCCEEDED for name in MARKS)
            again = tasks.get("again")
            lost += again is None or again.state is not TaskState.FAILED or again.failures() < 2
            doubled += again is not None and again.failures() > 2
        lost += not spool.workflow_ids()
        return Found(killed, lost, doubled, len(check(spool.root)))

    def _remove(self, spool: Spool) -> None:
        spool.close()
        files.remove_tree(spool.root.parent)

    def close(self) -> None:
        """Remove what is left, if anything was made."""
        if os.path.lexists(self._folder):
            files.remove_tree(self._folder)


def _workflow(marks: Path) -> Workflow:
    """Order, a failure, a retry, and tasks that may be done only once."""

    def mark(name: str, depends_on: tuple[str, ...] = (), after: tuple[str, ...] = ()) -> Task:
        return Task(name, "selftest.mark", {"file": str(marks), "line": name}, depends_on=depends_on, after=after)

    again = Task("again", "selftest.fail", retry=Retry(max_attempts=2, initial_delay_seconds=0.01))
    tasks = (mark("first"), mark("second", ("first",)), again, mark("last", ("second",), ("again",)))
    return Workflow("crash-trial", tasks, on_failure="continue")


def work_until_death(work: Callable[[], object], spool: Spool, die_at: int) -> int:
    """Do the work in this process, which dies by SIGKILL just before its `die_at`-th write; how many it made."""
    points = WritePoints(spool.root, die_at)
    work()
    return points.seen
