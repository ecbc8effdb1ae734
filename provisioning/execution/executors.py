"""The executors of one process as one: the local one, and the cluster's where there is one."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Sequence

from provisioning.core.identifiers import SLURM, Executing
from provisioning.errors import Refused
from provisioning.execution.executor import Ahead, Executor, Key, News, Remote


class Executors:
    """Each attempt is one executor's, which alone has news of it."""

    def __init__(self, local: Executor, cluster: Callable[[], Remote] | None = None, *, at_once: bool = False) -> None:
        """`cluster` makes the executor of Slurm when it is first needed or, to be told what is wrong, at once.

        None: there is none.
        """
        self.local, self._cluster = local, cluster
        self._slurm: Remote | None = None
        self.descriptor = local.descriptor
        self._both: select.epoll | None = None
        if cluster and at_once:
            self.slurm()

    @property
    def has_slurm(self) -> bool:
        """Whether a cluster is configured."""
        return self._cluster is not None

    def slurm(self) -> Remote:
        """The cluster's; Refused where none is configured, other errors where it cannot be used."""
        if self._cluster is None:
            text = "an attempt is with Slurm, and the configuration has no slurm.directory"
            raise Refused(text, hint="name the directory again that it was begun in: slurm.directory")
        if self._slurm is None:
            self._slurm = self._cluster()
            self._both = select.epoll()
            for each in (self.local, self._slurm):
                self._both.register(each.descriptor, select.EPOLLIN)
            self.descriptor = self._both.fileno()
        return self._slurm

    def named(self, name: Executing) -> Executor:
        """The one of that name; as `slurm`."""
        return self.slurm() if name == SLURM else self.local

    def _all(self) -> tuple[Executor, ...]:
        return (self.local, self._slurm) if self._slurm else (self.local,)

    def withdraw(self, key: Key) -> None:
        """The attempt will not be started after all."""
        for each in self._all():
            each.withdraw(key)

    def cancel(self, key: Key) -> None:
        """End the attempt, whose ever it is."""
        for each in self._all():
            each.cancel(key)

    def free_slots(self) -> int:
        """Room for so many more attempts."""
        return sum(each.free_slots() for each in self._all())

    def busy(self, slots: int) -> bool:
        """Whether an attempt is under way in any of them; `slots` is how many the local one has."""
        return self.local.free_slots() < slots or (self._slurm is not None and self._slurm.busy)

    def prepare(self, likely: Sequence[Ahead]) -> None:
        """Have processes wait here for what will probably be made next here."""
        self.local.prepare(likely)

    def news(self) -> Iterator[News]:
        """What has happened since the last call."""
        for each in self._all():
            yield from each.news()

    def trim(self, now: float) -> float | None:
        """As an executor's; the cluster has nothing idle."""
        return self.local.trim(now)

    def close(self) -> None:
        """Let go of all."""
        for each in self._all():
            each.close()
        if self._both is not None:
            self._both.close()
