"""Measures the program against its yardsticks, everything in one run: only the ratios of one run mean something.

./packaging/dev bench              start-up, submit, from a request to its start, an idle orchestrator, cost per task
./packaging/dev bench --repeat N   another number of runs of the last one; its medians are printed
TMPDIR says on which disk.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import hashlib
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from provisioning.execution.family import adopt_orphans

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
    """From what asks for work to the start of its process, then CPU and memory while idle."""
    bench.call("orchestrator", "run", "--until-empty")  # what start_up left
    bench.call("orchestrator", "start")
    try:
        path = bench.manifest(noops(1, lambda i: []))
        cold, *picked = (submitted(bench, path) for _ in range(11))
        print(f"pick-up, first          {cold * 1000:7.1f} ms           (a worker is started)")
        print(f"pick-up, median         {statistics.median(picked) * 1000:7.1f} ms           (goal 50)")
        interpreter = median_seconds(15, lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))[0]
        typed_in = [typed(bench) - interpreter for _ in range(11)]
        print(f"from the command typed  {statistics.median(typed_in) * 1000:7.1f} ms           (goal 150)")
        idle(bench)
        operator = getpass.getuser()
        bench.call("spool", "init", "--operators", operator)
        dropped = [drop(bench, path, bench.spool / "drop" / operator / f"{number}.json") for number in range(11)]
        print(f"from a drop to its start{statistics.median(dropped) * 1000:7.1f} ms           (goal 20)")
    finally:
        bench.call("orchestrator", "stop")


def submitted(bench: Bench, path: Path) -> float:
    """Seconds between a submission's rename and the start of its process."""
    workflow_id = bench.call("batch", "submit", str(path))
    submission = bench.spool / "workflows" / workflow_id / "submission.json"
    return started_at(bench, workflow_id) - submission.stat().st_ctime


def drop(bench: Bench, path: Path, target: Path) -> float:
    """Seconds between the rename of a drop's digest, the manifest being there, and the start of its process."""
    data = path.read_bytes()
    target.write_bytes(data)
    proof = target.with_name(f".{target.name}")
    proof.write_text(f"{hashlib.sha256(data).hexdigest()}  {target.name}\n")
    receipt = target.with_name(f"{target.name}.receipt.json")
    begun = time.time()
    proof.rename(f"{target}.sha256")
    while not receipt.exists() or "workflow_id" not in (said := json.loads(receipt.read_text())):
        time.sleep(0.05)  # seldom enough to be in nobody's way
    return started_at(bench, said["workflow_id"]) - begun


def typed(bench: Bench) -> float:
    """Seconds between the start of a command and that of the process that an orchestrator starts for it."""
    begun = time.time()
    bench.call("selftest", "noop", "--orchestrated")
    return started_at(bench, max(os.listdir(bench.spool / "workflows"))) - begun


def started_at(bench: Bench, workflow_id: str) -> float:
    """When the only task of a workflow was started, by the wall clock."""
    bench.call("workflow", "watch", workflow_id)
    (path,) = (bench.spool / "workflows" / workflow_id / "outcomes").iterdir()
    return datetime.fromisoformat(json.loads(path.read_text())["started_at"]).timestamp()


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


class Shape(NamedTuple):
    """A graph of tasks that do nothing."""

    tasks: int
    needs: Callable[[int], list[int]]

    def first(self) -> Shape:
        """Its first task alone: what does not grow with the tasks."""
        return self._replace(tasks=1)


SHAPES = {
    "flat": Shape(500, lambda i: []),
    "chain": Shape(200, lambda i: [i - 1] if i else []),
    "layers": Shape(500, lambda i: [] if i < 25 else [i // 25 * 25 - 25 + (i * 7 + k * 5) % 25 for k in range(3)]),
}
"""Tasks that need nothing, one after the other, and 20 layers of 25 of which each needs three of the layer before."""
SLOTS = 2
REQUEST = json.dumps({"params": {}, "env": {"PATH": "/usr/bin"}}, separators=(",", ":"))


class Cost(NamedTuple):
    """Seconds of the clock, and of processors in all processes that were needed."""

    wall: float
    cpu: float

    def per_task(self, beside: Cost, count: int) -> Cost:
        """Milliseconds for each task but the first."""
        return Cost(*((mine - other) / (count - 1) * 1000 for mine, other in zip(self, beside, strict=True)))


def cost(*words: str, graph: Path | None = None, environment: Mapping[str, str] | None = None) -> Cost:
    """What a command costs, with all that it leaves running until that has ended: orphans become ours."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with open(graph or os.devnull, "rb") as given:
        done = subprocess.run(words, stdin=given, capture_output=True, env=environment, check=False, timeout=3600)
    wall = time.perf_counter() - begun
    assert done.returncode == 0, (words, done.stderr)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


class Yardsticks:
    """What starts the entry of `selftest.noop` for each task of a shape: bare loops, and this program."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._limit = str(bench.folder / "limit")
        source = Path(__file__).with_name("limit.c")
        subprocess.run(["cc", "-O2", "-o", self._limit, str(source)], check=True)
        bench.environment["PROVISIONING_ORCHESTRATOR_SLOTS"] = str(SLOTS)
        bench.call("selftest", "noop")  # keeps its entry in the spool
        entry = str(next(bench.spool.glob("nulib/*/entries/selftest.noop.nu")))
        self._attempt = (os.path.realpath(NU), entry, REQUEST)

    def limit(self, shape: Shape) -> Cost:
        """A loop in C that keeps no state."""
        graph = self._bench.folder / "graph"
        graph.write_text("".join(" ".join(map(str, shape.needs(i))) + "\n" for i in range(shape.tasks)))
        return cost(self._limit, "loop", *self._attempt, str(SLOTS), graph=graph)

    def xargs(self, shape: Shape) -> Cost:
        """It knows no order: only for a flat shape."""
        graph = self._bench.folder / "lines"
        graph.write_text("".join(f"{i}\n" for i in range(shape.tasks)))
        return cost("xargs", "-P", str(SLOTS), "-n", "1", self._limit, "one", *self._attempt, graph=graph)

    def make(self, shape: Shape) -> Cost:
        """A target for each task."""
        rules = [f"all: {' '.join(f't{i}' for i in range(shape.tasks))}"]
        command = shlex.join([self._limit, "one", *self._attempt])
        rules += [f"t{i}: {' '.join(f't{j}' for j in shape.needs(i))}\n\t@{command}" for i in range(shape.tasks)]
        path = self._bench.folder / "Makefile"
        path.write_text("\n".join(rules) + "\n")
        return cost("make", "-s", "-j", str(SLOTS), "-f", str(path))

    def skeleton(self, shape: Shape) -> Cost:
        """The system calls of the attempts of a flat shape, in Python, and nothing else."""
        script = str(Path(__file__).with_name("skeleton.py"))
        folder = tempfile.mkdtemp(dir=self._bench.folder)
        return cost(sys.executable, "-I", script, *self._attempt, str(SLOTS), str(shape.tasks), folder)

    def provisioning(self, shape: Shape) -> Cost:
        """This program, with every record that users rely on."""
        path = self._bench.manifest(noops(shape.tasks, shape.needs))
        self._bench.call("batch", "submit", str(path))
        return cost(PROGRAM, "orchestrator", "run", "--until-empty", environment=self._bench.environment)


def per_task(bench: Bench, repeat: int) -> None:
    """Wall time and CPU per task, in turn so that a slow moment of the machine meets all; medians."""
    adopt_orphans()
    sticks = Yardsticks(bench)
    print(f"{'':8}{'tasks':>6}{'limit ms':>10}{'xargs':>8}{'skeleton':>10}{'make':>8}{'this':>8}   goal", end="")
    print(f"{'CPU beyond limit':>20}   goal")
    for name, shape in SHAPES.items():
        flat = [sticks.xargs, sticks.skeleton] if name == "flat" else []
        makers = [sticks.limit, *flat, sticks.make, sticks.provisioning]
        runs = []
        for _ in range(repeat):
            alone = [maker(shape.first()) for maker in makers]
            runs.append([maker(shape).per_task(one, shape.tasks) for maker, one in zip(makers, alone, strict=True)])
        limit = statistics.median(run[0].wall for run in runs)
        ratios = [statistics.median(run[k].wall / run[0].wall for run in runs) for k in range(1, len(makers))]
        shown = [""] * (4 - len(ratios)) + [f"{ratio:.2f}" for ratio in ratios]
        beyond = statistics.median(run[-1].cpu - run[0].cpu for run in runs)
        goal = "0.75" if name == "chain" else "1.20"
        columns = "".join(f"{text:>{width}}" for text, width in zip(shown, (8, 10, 8, 8), strict=True))
        print(f"{name:8}{shape.tasks:6}{limit:10.2f}{columns}   {goal}{beyond:17.2f} ms    0.8")


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", choices=["commands", "starts", "tasks"], help="one part alone")
    asked = parser.parse_args()
    parts: dict[str, Callable[[Bench], None]]
    parts = {"commands": start_up, "starts": orchestrator, "tasks": partial(per_task, repeat=asked.repeat)}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for name, part in parts.items():
            if asked.only in (None, name):
                part(bench)


if __name__ == "__main__":
    main()
