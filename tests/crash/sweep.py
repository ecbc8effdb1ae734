"""Disturbs the workflows of `workload` at one point after the other, two at a time, and counts what came of it."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tests.figures import ALL, Figures

AT_ONCE = 2
"""Points tried at the same time: most of each is waiting."""

MISSED = 20
"""One point of so many may be missed, and one more: which calls there are depends on how often a process looks."""

T = TypeVar("T")


class MissedError(Exception):
    """Nobody came to the point, at any of its chances: nothing was tried there."""


def sweep(name: str, points: Sequence[T], trial: Callable[[T, Path], Figures], folder: Path) -> Figures:
    """Try every point in a folder of its own; the test fails with what all of them said, if one did.

    A point that was missed is not counted as one; more than a few of them are a failure too, and all of them always.
    """
    with ThreadPoolExecutor(AT_ONCE) as threads:
        tried = [threads.submit(_tried, trial, point, folder / str(n)) for n, point in enumerate(points, start=1)]
    total = sum((future.result() for future in tried), Figures(name))
    ALL.append(total)
    assert not total.wrong, "\n".join(total.wrong)
    few = total.missed <= 1 + len(points) // MISSED and total.points > 0
    assert few, f"{total.missed} of {len(points)} points were missed"
    return total


def _tried(trial: Callable[[T, Path], Figures], point: T, folder: Path) -> Figures:
    """What came of one point; a failed assertion is what is wrong there."""
    try:
        found = trial(point, folder)
    except MissedError:
        return Figures(missed=1)
    except Exception:  # noqa: BLE001 - the other points are still tried, and the test fails with all that was said
        found = Figures(wrong=[traceback.format_exc()])
    if found.wrong:
        found.wrong.insert(0, f"--- {folder}: {point}")
    return found + Figures(points=1)


def spread(points: Sequence[T], share: int) -> list[T]:
    """Every `share`-th of the points, beginning in the middle of the first share."""
    return list(itertools.islice(points, share // 2, None, share))
