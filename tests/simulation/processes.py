"""Orchestrator processes of a simulated host: the executor that each has, and what is left when one dies."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from provisioning.config import Config
from provisioning.execution.executor import Ahead, AttemptRequest, Key, News
from provisioning.orchestrator.loop import Orchestrator
from provisioning.storage.spool import Spool
from tests.simulation.worker import Worker
from tests.simulation.workload import load_nulib
from tests.simulation.world import World


class SimulatedExecutor:
    """The executor of one orchestrator on a simulated host."""

    descriptor = -1

    def __init__(self, world: World, slots: int) -> None:
        self._world = world
        self._slots = slots
        self._workers: dict[Key, Worker] = {}
        self._news: list[News] = []

    def assign(self, key: Key, argv: tuple[str, ...]) -> str:
        assert self.free_slots() > 0, "more attempts than slots"
        self._workers[key] = worker = self._world.hire()
        return worker.name

    def start(self, request: AttemptRequest) -> None:
        worker = self._workers[request.key]
        worker.request, worker.news = request, self._take
        self._world.later(self._world.fate(request.key).choice([0.0, 0.02, 0.5]), lambda: self._world.begin(worker))

    def _take(self, news: News) -> None:
        self._news.append(news)
        self._workers.pop(news.key, None)

    def withdraw(self, key: Key) -> None:
        if worker := self._workers.pop(key, None):  # it may not have been assigned yet
            worker.alive = False

    def cancel(self, key: Key) -> None:
        if worker := self._workers.get(key):
            self._world.cancel(worker)

    def free_slots(self) -> int:
        return self._slots - len(self._workers)

    def prepare(self, likely: Sequence[Ahead]) -> None:
        """None waits here."""

    def has_news(self) -> bool:
        return bool(self._news)

    def news(self) -> Iterable[News]:
        found, self._news = self._news, []
        return found

    def trim(self, now: float) -> float | None:
        return None

    def close(self) -> None:
        """As when the process ends: what runs goes on, and nobody hears of it; what was not started never is."""
        for worker in self._workers.values():
            worker.news = lambda news: None
            if worker.request is None:
                worker.alive = False


class Incarnation:
    """One orchestrator process."""

    def __init__(self, world: World, config: Config) -> None:
        self.spool = Spool.open(world.spool.root)
        self.executor = SimulatedExecutor(world, config.orchestrator.slots)
        self.orchestrator = Orchestrator(self.spool, config, self.executor, load_nulib)

    def die(self) -> None:
        """Its descriptors close, and with them its locks; what it left half written stays."""
        self.executor.close()
        self.orchestrator._limits.close()
        for held in self.orchestrator._held.values():
            held.release()
        drop_scratch(self.spool)


def drop_scratch(spool: Spool) -> None:
    """The spool's process is gone; its scratch folder stays, and nobody has its lock."""
    if spool._scratch is not None:
        os.close(spool._scratch.descriptor)
        spool._scratch = None
