"""What grows with the number of tasks, of manifests and of workflows, and by how much. Only ratios of one run count.

What the orchestrator itself costs is measured with an executor that ends at once. TMPDIR says on which disk: one in
memory shows the orchestrator, a real one mostly that disk.

./packaging/dev bench scale [PART]…   tasks many ended submitting looking recovering; all of these where none is named
./packaging/dev bench scale running   a large workflow with real processes: ten minutes
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from provisioning.clock import boottime, new_ulid
from tests.benchmark.place import LARGE, SHAPES, SMALL, AtOnce, Site, flat, manifest, memory_mib, site


def report(what: str, value: float, unit: str, goal: str, more: str = "") -> None:
    """One line of the result."""
    print(f"{what:44} {value:9.2f} {unit:4} (goal {goal}) {more}".rstrip(), flush=True)


def alone(measurement: str, *arguments: object) -> list[float]:
    """What a measurement gives in a process of its own: none meets the memory of another."""
    command = [sys.executable, "-m", "tests.benchmark.scale", measurement, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: list[float] = json.loads(done.stdout)
    return found


# One workflow


def tasks() -> None:
    """A large workflow against a small one, from the claim to the end; twenty small ones, to be worth measuring."""
    for name in SHAPES:
        small_wall, small_cpu, _ = alone("one", name, SMALL)
        wall, cpu, peak = alone("one", name, LARGE)
        millis = f"{wall * 1e3:.3f} ms against {small_wall * 1e3:.3f}"
        report(f"{name}: {LARGE} tasks / {SMALL}, time per task", wall / small_wall, "x", "1.2", millis)
        millis = f"{cpu * 1e3:.3f} ms against {small_cpu * 1e3:.3f}"
        report(f"{name}: CPU per task", cpu / small_cpu, "x", "1.2", millis)
        report(f"{name}: peak of memory", peak, "MiB", "250")


def one(name: str, count: str) -> list[float]:
    """Wall and CPU seconds per task, and the peak of memory in MiB, of workflows in this process one after another."""
    rounds = max(1, SMALL * 20 // int(count))
    walls, cpus = [], []
    for _ in range(rounds):
        with site() as place:
            place.submit(manifest(int(count), SHAPES[name]))
            gc.collect()
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            begun = time.process_time()
            walls.append(place.work() / int(count))
            cpus.append((time.process_time() - begun) / int(count))
    return [statistics.median(walls), statistics.median(cpus), memory_mib("VmHWM")]


def running() -> None:
    """A large workflow against small ones, with the processes that users run."""
    with site() as place:
        beside = worked(place, 1)
        small = statistics.median(worked(place, SMALL) - beside for _ in range(5)) / (SMALL - 1)
        large = (worked(place, LARGE) - beside) / (LARGE - 1)
        millis = f"{large * 1e3:.2f} ms against {small * 1e3:.2f}"
        report(f"flat: {LARGE} tasks / {SMALL}, real processes", large / small, "x", "1.2", millis)


def worked(place: Site, count: int) -> float:
    """Seconds that the program takes for a workflow of so many tasks."""
    place.environment["PROVISIONING_ORCHESTRATOR_SLOTS"] = "2"
    place.submit(manifest(count, flat))
    return place.run("orchestrator", "run", "--until-empty")


# Many workflows


def many() -> None:
    """Manifests that come in at once: what each costs, when the first starts, and how soon an urgent one does."""
    few_wall, few_cpu, _, _ = alone("manifests", 100)
    wall, cpu, first, place = alone("manifests", 10_000)
    millis = f"{wall * 1e3:.2f} ms against {few_wall * 1e3:.2f}"
    report("10000 manifests / 100, time per manifest", wall / few_wall, "x", "1.3", millis)
    report("10000 manifests / 100, CPU per manifest", cpu / few_cpu, "x", "1.3")
    report("from the first look to the first start", first, "s", "1")
    report("an urgent one starts as number", place, "", "10")


def manifests(count: str) -> list[float]:
    """Wall and CPU seconds per manifest, seconds to the first start, and the place of an urgent one in the queue."""
    with site() as place:
        for _ in range(int(count)):
            place.submit(manifest(1, flat))
        executor = AtOnce(keep=True)
        orchestrator = place.orchestrator(executor)
        begun, cpu_begun = boottime(), time.process_time()
        urgent, asked, spent, spent_cpu = "", 0, 0.0, 0.0
        while True:
            orchestrator.tick()
            if not urgent and len(executor.started) >= int(count) // 2:
                before = boottime(), time.process_time()
                urgent, asked = place.submit(manifest(1, flat, priority=100)), len(executor.started)
                orchestrator.scan_soon([str(place.spool.incoming / urgent)])  # what the watcher tells
                spent, spent_cpu = boottime() - before[0], time.process_time() - before[1]
            if not orchestrator.running and orchestrator.next_start() is None:
                break
        wall, cpu = boottime() - begun - spent, time.process_time() - cpu_begun - spent_cpu
        orchestrator.close()
        order = [key.workflow_id for key, _ in executor.started]
        first = executor.started[0][1] - begun
        return [wall / int(count), cpu / int(count), first, order.index(urgent) + 1 - asked]


def ended() -> None:
    """What 10,000 workflows that have ended cost an orchestrator that has started, and who lists them."""
    without_cpu, without_memory = alone("idle", 0)
    with_cpu, with_memory = alone("idle", 10_000)
    report("10000 ended workflows, CPU per scan", (with_cpu - without_cpu) * 1e3, "ms", "0", f"of {with_cpu * 1e3:.3f}")
    report("10000 ended workflows, memory", with_memory - without_memory, "MiB", "0")


def idle(count: str) -> list[float]:
    """CPU seconds of a scan, and MiB of memory, beside so many workflows that have ended."""
    with site() as place:
        fill(place, int(count))
        orchestrator = place.orchestrator(AtOnce())
        orchestrator.tick()
        gc.collect()
        memory, begun = memory_mib("VmRSS"), time.process_time()
        for _ in range(200):
            orchestrator.scan_soon()
            orchestrator.tick()
        cpu = (time.process_time() - begun) / 200
        orchestrator.close()
        return [cpu, memory]


def fill(place: Site, count: int) -> None:
    """Make workflows that have ended, of one that really has."""
    first = place.submit(manifest(1, flat))
    place.work()
    pattern = place.spool.workflows / first
    for _ in range(count - 1):
        workflow_id = new_ulid()
        folder = place.spool.workflows / workflow_id
        shutil.copytree(pattern, folder)
        for name in ("submission.json", "workflow.json", "plan.json"):
            text = (folder / name).read_text("utf-8")
            (folder / name).write_text(text.replace(first, workflow_id), "utf-8")


# Commands


def submitting() -> None:
    """A whole submit of large manifests."""
    with site() as place:
        for count, goal in ((10_000, "1.5"), (LARGE, "12")):
            path = place.folder / "large.json"
            path.write_text(json.dumps(manifest(count, flat)), "utf-8")
            report(f"submit of {count} tasks", place.run("batch", "submit", str(path)), "s", goal)


def looking() -> None:
    """Looks at a large workflow that is half done, and at many workflows."""
    with site() as place:
        workflow_id = half_done(place)
        for arguments in (("status", workflow_id), ("status", workflow_id, "--json")):
            seconds = statistics.median(place.run("workflow", *arguments) for _ in range(3))
            report(f"workflow {' '.join(arguments)[:6]} of {LARGE} tasks {arguments[-1][:6]}", seconds, "s", "0.5")
    with site() as place:
        fill(place, 10_000)
        seconds = statistics.median(place.run("workflow", "list") for _ in range(3))
        report("workflow list of 10000", seconds, "s", "1")


def half_done(place: Site) -> str:
    """A large workflow whose orchestrator has let go of it when half of its tasks had ended."""
    workflow_id = place.submit(manifest(LARGE, flat))
    executor = AtOnce(keep=True)
    orchestrator = place.orchestrator(executor)
    while len(executor.started) < LARGE // 2:
        orchestrator.tick()
    orchestrator.draining = True
    orchestrator.tick()
    orchestrator.close()
    return workflow_id


def recovering() -> None:
    """From the start of an orchestrator to its first start, with half of a large workflow done."""
    seconds, memory = alone("recovery")
    report(f"recovery of {LARGE} tasks, half of them done", seconds, "s", "5", f"{memory:.0f} MiB")


def recovery() -> list[float]:
    """Seconds from the making of an orchestrator to its first start, and the peak of memory in MiB."""
    with site() as place:
        half_done(place)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        executor = AtOnce(keep=True)
        begun = boottime()
        orchestrator = place.orchestrator(executor)
        orchestrator.tick()
        seconds = executor.started[0][1] - begun
        orchestrator.close()
        return [seconds, memory_mib("VmHWM")]


PARTS = (tasks, many, ended, submitting, looking, recovering)
MEASUREMENTS = (one, manifests, idle, recovery)


def main() -> None:
    """Do the parts that are named, or one measurement for one of them."""
    measurements = {each.__name__: each for each in MEASUREMENTS}
    if sys.argv[1:] and sys.argv[1] in measurements:
        print(json.dumps(measurements[sys.argv[1]](*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {each.__name__: each for each in (*PARTS, running)}
    parser.add_argument("parts", nargs="*", choices=[[], *parts], metavar="PART")
    for name in parser.parse_args().parts or [each.__name__ for each in PARTS]:
        parts[name]()


if __name__ == "__main__":
    main()
