"""Thousands of schedules of crashes, power cuts and full disks: nothing lost, nothing doubled, nothing too early."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import figures

ROOT = Path(__file__).parents[2]


def run_all(first: int, count: int) -> None:
    """Run so many histories on all processors; a failure shows the seed and the command that repeats it."""
    shares = os.cpu_count() or 1
    bounds = [first + count * share // shares for share in range(shares + 1)]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.simulation.history", f"{low}-{high - 1}"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for low, high in itertools.pairwise(bounds)
    ]
    said = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0] * shares, "\n".join(said)[-4000:]
    figures.note("simulated histories", points=count)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, 2000, 500))
def test_histories(first: int) -> None:
    run_all(first, 500)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(2000, 100_000, 2000))
def test_more_histories(first: int) -> None:
    run_all(first, 2000)


def test_a_failure_names_the_seed_and_the_command_that_repeats_it() -> None:
    code = (
        "from tests.simulation import history, promises\n"
        "def broken(*_):\n"
        "    raise AssertionError('planted')\n"
        "promises.check_all = broken\n"
        "history.run_histories([7])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "seed 7; again: PYTHONHASHSEED=0 python -m tests.simulation.history 7" in found.stderr
    again = [sys.executable, "-m", "tests.simulation.history", "7"]
    assert subprocess.run(again, cwd=ROOT, capture_output=True, check=False).returncode == 0
