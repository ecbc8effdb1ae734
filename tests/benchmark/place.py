"""What measurements of scale share: a spool, workflows of several shapes, an executor that ends at once."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from provisioning.clock import boottime, new_ulid, now
from provisioning.config import Config
from provisioning.core.locate import Limits
from provisioning.core.states import Outcome
from provisioning.core.workflow import FORMAT, OutcomeRecord
from provisioning.execution.executor import Ahead, AttemptRequest, Key, News, Seen
from provisioning.execution.nulib import Nulib, load_nulib
from provisioning.orchestrator.loop import Orchestrator
from provisioning.storage.spool import Spool
from provisioning.storage.submission import submit

PROGRAM = str(Path(sys.executable).parent / "provisioning")
LARGE, SMALL = 100_000, 1_000
SLOTS = 10
EDGES = 5

Needs = Callable[[int], Sequence[int]]


class AtOnce:
    """An executor whose attempts have succeeded by the time anybody asks: what is left is the orchestrator's cost."""

    def __init__(self, *, keep: bool = False) -> None:
        self.descriptor = os.eventfd(0)
        """Never readable: nobody waits for what has happened already."""
        self._news: list[News] = []
        self._worker = new_ulid()
        self._keep = keep
        self.started: list[tuple[Key, float]] = []
        """With `keep`, what was started, and when."""

    def assign(self, key: Key, argv: tuple[str, ...]) -> str:
        return self._worker

    def start(self, request: AttemptRequest) -> None:
        key, at = request.key, now()
        if self._keep:
            self.started.append((key, boottime()))
        record = OutcomeRecord(FORMAT, key.workflow_id, key.task_id, key.attempt, Outcome.SUCCEEDED, at, at, 0)
        self._news.append(News(key, Seen.ENDED, record))

    def withdraw(self, key: Key) -> None:
        return

    def cancel(self, key: Key) -> None:
        return

    def free_slots(self) -> int:
        return SLOTS - len(self._news)

    def prepare(self, likely: Sequence[Ahead]) -> None:
        """None waits here."""

    def news(self) -> list[News]:
        found, self._news = self._news, []
        return found

    def trim(self, now: float) -> float | None:
        return boottime() if self._news else None

    def close(self) -> None:
        os.close(self.descriptor)


class Site:
    """A spool in a scratch folder, the operations, and the orchestrator with an executor that ends at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = Spool.create(folder / "spool")
        self.environment = {**os.environ, "PROVISIONING_SPOOL": str(self.spool.root)}
        self.config = Config.of_this_process({"spool": str(self.spool.root)})
        self.nulib: Nulib = load_nulib(self.config)

    def submit(self, document: dict[str, Any]) -> str:
        """Put a manifest in; its workflow_id."""
        return submit(
            json.dumps(document).encode(),
            form="json",
            file="bench.json",
            spool=self.spool,
            catalogue=self.nulib.catalogue,
            operator="bench",
            door="cli",
            limits=Limits(),
            sources=self.nulib.sources(lambda: self.spool),
        )

    def orchestrator(self, executor: AtOnce) -> Orchestrator:
        return Orchestrator(self.spool, self.config, executor, lambda: self.nulib)

    def work(self, executor: AtOnce | None = None) -> float:
        """Seconds until nothing is left to do."""
        begun = time.perf_counter()
        orchestrator = self.orchestrator(executor or AtOnce())
        while True:
            orchestrator.tick()
            if not orchestrator.running and orchestrator.next_start() is None:
                break
        orchestrator.close()
        return time.perf_counter() - begun

    def run(self, *arguments: str) -> float:
        """Seconds that a whole command takes."""
        begun = time.perf_counter()
        subprocess.run([PROGRAM, *arguments], env=self.environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begun


def manifest(count: int, needs: Needs, name: str = "bench", **rest: Any) -> dict[str, Any]:
    tasks = [
        {"id": f"t{i}", "operation": "selftest.noop", "depends_on": [f"t{j}" for j in needs(i)]} for i in range(count)
    ]
    return {"schema": 1, "name": name, "tasks": tasks, **rest}


def flat(i: int) -> Sequence[int]:
    return ()


def layers(i: int) -> Sequence[int]:
    """Layers of 25; each task after three of the layer before."""
    return () if i < 25 else [i // 25 * 25 - 25 + (i * 7 + k * 5) % 25 for k in range(3)]


def tangled(i: int) -> Sequence[int]:
    """Five tasks among all that come before."""
    return random.Random(i).sample(range(i), min(i, EDGES))


SHAPES: dict[str, Needs] = {"flat": flat, "layers": layers, "random": tangled}


@contextmanager
def site() -> Iterator[Site]:
    """A spool for one measurement, under TMPDIR."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        yield Site(Path(folder))


def memory_mib(field: str) -> float:
    """A figure of this process: VmRSS, or VmHWM for the most there was since it was cleared."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
