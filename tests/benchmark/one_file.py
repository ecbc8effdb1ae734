"""The one file against the installed wheel, in one run: a warm start, the first start, an orchestrator's memory.

Usage: python -m tests.benchmark.one_file FILE WHEEL_PROGRAM, such as dist/provisioning-… and .venv/bin/provisioning.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.waiting import wait_for

ROUNDS = 31


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """How long the command takes."""
    began = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def memory(program: str, environment: dict[str, str]) -> int:
    """What an idle orchestrator and its forkserver have written, in bytes: what no other process can share."""
    subprocess.run([program, "spool", "init"], env=environment, stdout=subprocess.DEVNULL, check=True)
    with subprocess.Popen([program, "orchestrator", "run"], env=environment, start_new_session=True) as process:
        record = Path(environment["PROVISIONING_SPOOL"], "orchestrator.json")
        wait_for(record.exists, what="the orchestrator to work")
        time.sleep(1)  # what a benchmark may: let it come to rest
        total = 0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == process.pid:
                    rollup = (folder / "smaps_rollup").read_text()
                    dirty = (line for line in rollup.splitlines() if line.startswith("Private_Dirty:"))
                    total += next(int(line.split()[1]) for line in dirty)
            except OSError:
                continue
        process.send_signal(signal.SIGTERM)
    return total * 1024


def main() -> None:
    """Print the figures."""
    file, wheel = (str(Path(argument).absolute()) for argument in sys.argv[1:3])
    with tempfile.TemporaryDirectory() as folder:
        essential = {"PATH": os.environ["PATH"], "HOME": folder, "PROVISIONING_CACHE": f"{folder}/cache"}
        if nu := os.environ.get("PROVISIONING_NU"):
            essential["PROVISIONING_NU"] = nu
        first = []
        for _ in range(3):
            shutil.rmtree(f"{folder}/cache", ignore_errors=True)
            first.append(seconds([file, "--version"], essential))
        taken: dict[str, list[float]] = {file: [], wheel: []}
        for _ in range(ROUNDS):
            for program, times in taken.items():
                times.append(seconds([program, "--version"], essential))
        warm = {program: statistics.median(times) for program, times in taken.items()}
        used = [
            memory(program, essential | {"PROVISIONING_SPOOL": f"{folder}/spool-{name}"})
            for name, program in (("file", file), ("wheel", wheel))
        ]
    print(f"size of the file            {os.stat(file).st_size / 1e6:8.1f} MB")
    print(f"first start                 {statistics.median(first):8.2f} s")
    print(f"warm --version, file        {warm[file] * 1000:8.1f} ms")
    print(f"warm --version, wheel       {warm[wheel] * 1000:8.1f} ms")
    print(f"file / wheel                {warm[file] / warm[wheel]:8.2f}")
    print(f"memory of an orchestrator   {used[0] / 1e6:8.1f} MB, from the wheel {used[1] / 1e6:.1f} MB")
    print(f"file / wheel                {used[0] / used[1]:8.2f}")


if __name__ == "__main__":
    main()
