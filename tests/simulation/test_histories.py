"""Thousands of crash schedules: nothing lost, nothing doubled, nothing too early, and every workflow ends."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from tests.simulation.history import run_history


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("provisioning").setLevel(logging.CRITICAL)


def run_all(seeds: range, place: Path) -> None:
    for seed in seeds:
        run_history(seed, place / str(seed))
        shutil.rmtree(place / str(seed))


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_histories(first: int, tmp_path: Path) -> None:
    run_all(range(first, first + 20), tmp_path)
