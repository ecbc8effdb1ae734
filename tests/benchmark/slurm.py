"""What a task costs on Slurm beside a bare loop of sbatch that starts the same processes: `packaging/dev bench slurm`.

Both put so many tasks that each sleep into the queue of the same two nodes and wait for the last; the cluster is one of
this host alone. The bare loop knows no order, keeps no log or outcome, and loses what a crash interrupts.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.installation import Installation
from tests.slurm.cluster import Cluster, lacking
from tests.waiting import wait_for

LONGEST_SECONDS = 1800.0


def bare(cluster: Cluster, root: Path, nu: str, tasks: int, seconds: float) -> float:
    """So long a shell loop takes, from its first sbatch to the end of the last job."""
    job = f"exec {nu} --no-config-file --no-std-lib -c 'sleep {seconds}sec'"
    loop = f'for i in $(seq {tasks}); do sbatch --quiet --job-name=bare.$i --output={root}/bare.$i --wrap="$JOB"; done'
    environment = {**cluster.environment, "JOB": job}
    begin = time.monotonic()
    subprocess.run(["sh", "-c", loop], env=environment, check=True, cwd="/", stdout=subprocess.DEVNULL)
    wait_for(lambda: "bare." not in cluster.do("squeue", "--noheader", "--format=%j"), LONGEST_SECONDS)
    return time.monotonic() - begin


def ours(site: Installation, tasks: int, seconds: float) -> float:
    """So long a workflow of the same tasks takes, from its submission to its recorded end."""
    params = {"seconds": seconds}
    listed = [{"id": f"t{i}", "operation": "selftest.sleep", "params": params} for i in range(tasks)]
    begin = time.monotonic()
    workflow_id = site.submit(listed)
    state = site.wait_ended(workflow_id, LONGEST_SECONDS)
    assert state == "succeeded", site.said()
    return time.monotonic() - begin


def main() -> int:
    """Print one line for each round, and the ratio of the medians."""
    parser = argparse.ArgumentParser(prog="packaging/dev bench slurm", description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each task sleeps")
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    if reason := lacking():
        print(reason, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        for name in ("cluster", "shared", "site", "cache"):
            (root / name).mkdir(mode=0o700)
        cluster = Cluster(root / "cluster")
        settings: dict[str, Any] = {
            "orchestrator_executor": "slurm",
            "slurm_directory": root / "shared",
            "slurm_conf": cluster.conf,
        }
        site = Installation(root / "site", root / "cache", **settings)
        try:
            cluster.start()
            site.orchestrator()
            ours(site, 1, 0)  # the nodes have been asked by then
            times: dict[str, list[float]] = {"bare": [], "ours": []}
            for number in range(asked.rounds):
                times["bare"].append(
                    bare(cluster, root, site.environment["PROVISIONING_NU"], asked.tasks, asked.seconds)
                )
                times["ours"].append(ours(site, asked.tasks, asked.seconds))
                print(f"round {number + 1}: bare {times['bare'][-1]:.1f} s, provisioning {times['ours'][-1]:.1f} s")
            middle = {name: statistics.median(found) for name, found in times.items()}
            print(
                f"{asked.tasks} tasks of {asked.seconds:g} s: {middle['ours'] / middle['bare']:.2f} times a bare loop"
            )
        finally:
            site.close()
            cluster.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
