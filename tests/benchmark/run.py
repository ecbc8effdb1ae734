"""Measures the program against its yardsticks, everything in one run: only the ratios of one run mean something.

./packaging/dev bench            start-up, submit, pick-up, an idle orchestrator, cost per task
./packaging/dev bench --tasks N  another number of tasks for the last one
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PROGRAM = str(Path(sys.executable).parent / "provisioning")
NU = str(Path(sys.executable).parent / "nu")


def median_seconds(runs: int, *deeds: Callable[[], object]) -> list[float]:
    """The median wall time of each deed, done in turn so that a slow moment of the machine meets all of them."""
    times: list[list[float]] = [[] for _ in deeds]
    for _ in range(runs):
        for deed, taken in zip(deeds, times, strict=True):
            begun = time.perf_counter()
            deed()
            taken.append(time.perf_counter() - begun)
    return [statistics.median(taken) for taken in times]


class Bench:
    """One spool in a scratch folder, and the program working it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.environment = {**os.environ, "PROVISIONING_SPOOL": str(self.spool), "PYTHONDONTWRITEBYTECODE": ""}
        self.call("spool", "init")

    def call(self, *arguments: str) -> str:
        """Run the program; what it printed."""
        done = subprocess.run(
            [PROGRAM, *arguments], env=self.environment, check=True, capture_output=True, text=True, timeout=600
        )
        return done.stdout.strip()

    def manifest(self, tasks: Sequence[dict[str, object]], name: str = "bench") -> Path:
        """A manifest file of these tasks."""
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps({"schema": 1, "name": name, "tasks": tasks}))
        return path


def noops(count: int, needs: Callable[[int], list[int]]) -> list[dict[str, object]]:
    """Tasks that do nothing, each after those that `needs` gives."""
    return [
        {"id": f"t{i}", "operation": "selftest.noop", "depends_on": [f"t{j}" for j in needs(i)]} for i in range(count)
    ]


def start_up(bench: Bench) -> None:
    """`--version` and a submit, against `python -c 'import click'`."""
    path = str(bench.manifest(noops(10, lambda i: [i - 1] if i else [])))
    click = [sys.executable, "-c", "import click"]
    base, version, submit = median_seconds(
        15,
        lambda: subprocess.run(click, check=True, env=bench.environment),
        lambda: bench.call("--version"),
        lambda: bench.call("batch", "submit", path),
    )
    print(f"import click            {base * 1000:7.1f} ms")
    print(f"provisioning --version  {version * 1000:7.1f} ms  {version / base:5.2f} x  (goal 1.6)")
    print(f"submit of 10 tasks      {submit * 1000:7.1f} ms  {submit / base:5.2f} x  (goal 2.5)")


def orchestrator(bench: Bench) -> None:
    """From the rename into incoming/ to the first start of nu, then CPU and memory while idle."""
    bench.call("orchestrator", "run", "--until-empty")  # what start_up left
    bench.call("orchestrator", "start")
    try:
        path = str(bench.manifest(noops(1, lambda i: [])))
        delays = []
        for _ in range(11):
            workflow_id = bench.call("batch", "submit", path)
            bench.call("workflow", "watch", workflow_id)
            delays.append(first_start(bench.spool / "workflows" / workflow_id))
        cold, *warm = delays
        print(f"pick-up, first          {cold * 1000:7.1f} ms           (a worker is started)")
        print(f"pick-up, median         {statistics.median(warm) * 1000:7.1f} ms           (goal 50)")
        idle(bench)
    finally:
        bench.call("orchestrator", "stop")


def first_start(workflow: Path) -> float:
    """Seconds between the submission's rename and the first attempt's process."""
    outcome = json.loads((workflow / "outcomes" / "t0.1.json").read_text())
    started = time.mktime(time.strptime(outcome["started_at"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    started += float("0." + outcome["started_at"][20:].rstrip("Z"))
    return started - os.stat(workflow / "submission.json").st_ctime


def idle(bench: Bench) -> None:
    """CPU and memory of the orchestrator and its helper processes once its workers have ended."""
    record = json.loads((bench.spool / "orchestrator.json").read_text())
    pid = int(record["process"]["pid"])
    deadline = time.monotonic() + 60
    while len(family(pid)) > 3 and time.monotonic() < deadline:
        time.sleep(0.5)
    processes = family(pid)
    before, begun = cpu(processes), time.monotonic()
    time.sleep(20)
    share = (cpu(processes) - before) / (time.monotonic() - begun)
    print(f"idle CPU                {share * 100:7.3f} %            (goal 0.2)")
    print(f"idle memory, PSS        {pss(processes) / 1024:7.1f} MiB          (goal 60, {len(processes)} processes)")


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        for task in Path(f"/proc/{one}/task").iterdir():
            todo += map(int, (task / "children").read_text().split())
    return found


def cpu(processes: Sequence[int]) -> float:
    """CPU seconds that these processes have used."""
    ticks = 0
    for pid in processes:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def pss(processes: Sequence[int]) -> float:
    """KiB of memory, pages shared between them counted once."""
    lines = (line for pid in processes for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return sum(float(line.split()[1]) for line in lines if line.startswith("Pss:"))


def per_task(bench: Bench, count: int) -> None:
    """Wall time per task for three shapes, against a loop that starts the same entry and keeps no state."""
    shapes: dict[str, Callable[[int], list[int]]] = {
        "flat": lambda i: [],
        "chain": lambda i: [i - 1] if i else [],
        "layers": lambda i: [] if i < 25 else [i // 25 * 25 - 25 + (i * 7 + k * 5) % 25 for k in range(3)],
    }
    bench.environment["PROVISIONING_ORCHESTRATOR_SLOTS"] = "2"
    for name, needs in shapes.items():
        tasks = noops(count, needs)
        path = str(bench.manifest(tasks, name))
        bench.call("batch", "submit", path)
        (took,) = median_seconds(1, lambda: bench.call("orchestrator", "run", "--until-empty"))
        graph = [needs(i) for i in range(count)]
        (limit,) = median_seconds(1, functools.partial(limit_loop, bench, graph))
        print(f"{name:7} {count} tasks, 2 slots {took / count * 1000:7.2f} ms  {took / limit:5.2f} x limit")


def limit_loop(bench: Bench, needs: Sequence[Sequence[int]]) -> None:
    """Start the entry of selftest.noop for each task as soon as what it needs has ended, two at a time."""
    entry = str(next(bench.spool.glob("nulib/*/entries/selftest.noop.nu")))
    waits = [len(need) for need in needs]
    dependents: list[list[int]] = [[] for _ in needs]
    for i, need in enumerate(needs):
        for j in need:
            dependents[j].append(i)
    ready = [i for i, count in enumerate(waits) if not count][::-1]
    running: dict[int, int] = {}
    request = json.dumps({"params": {}, "env": {"PATH": "/usr/bin"}}).encode()
    while ready or running:
        while ready and len(running) < 2:
            descriptors = [os.memfd_create("request"), os.memfd_create("reply")]
            os.write(descriptors[0], request)
            os.lseek(descriptors[0], 0, os.SEEK_SET)
            moves = [(os.POSIX_SPAWN_DUP2, one, 20 + place) for place, one in enumerate(descriptors)]
            moves += [(os.POSIX_SPAWN_DUP2, 20 + place, 3 + place) for place in (0, 1)]
            argv = [NU, "--no-config-file", "--no-std-lib", entry]
            pid = os.posix_spawn(NU, argv, {"PATH": "/nonexistent"}, file_actions=moves)
            running[pid] = ready.pop()
            for one in descriptors:
                os.close(one)
        pid, _ = os.wait()
        for j in dependents[running.pop(pid)]:
            waits[j] -= 1
            if not waits[j]:
                ready.append(j)


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200)
    count = parser.parse_args().tasks
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        start_up(bench)
        orchestrator(bench)
        per_task(bench, count)


if __name__ == "__main__":
    main()
