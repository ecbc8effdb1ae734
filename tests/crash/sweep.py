"""Disturbs the workflows of `workload` at one point after the other, two at a time, and counts what came of it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

AT_ONCE = 2
"""Points tried at the same time: most of each is waiting."""

T = TypeVar("T")


@dataclasses.dataclass
class Figures:
    """What a sweep has found, in numbers."""

    sweep: str = ""
    points: int = 0
    """Points at which something was tried."""
    struck: int = 0
    """Disturbances that happened: kills, or errors that a process was given."""
    aimed: int = 0
    """Those that met a call which changes the spool; the others met one beside it."""
    asked: int = 0
    """Tasks that waited for a person, as their policy says."""
    done: int = 0
    """Those of them whose work was found done."""
    lost: int = 0
    doubled: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)
    """What must not be, lost and doubled among it, in words."""

    def __add__(self, other: Figures) -> Figures:
        values = {name: getattr(self, name) + getattr(other, name) for name in (*COUNTS, "wrong")}
        return Figures(self.sweep or other.sweep, **values)


COUNTS = ("points", "struck", "aimed", "asked", "done", "lost", "doubled")


ALL: list[Figures] = []
"""Of every sweep of this test session."""


def sweep(name: str, points: Sequence[T], trial: Callable[[T, Path], Figures], folder: Path) -> Figures:
    """Try every point in a folder of its own; the test fails with what all of them said, if one did."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        tried = [threads.submit(_tried, trial, point, folder / str(n)) for n, point in enumerate(points, start=1)]
    total = sum((future.result() for future in tried), Figures(name))
    ALL.append(total)
    assert not total.wrong, "\n".join(total.wrong)
    return total


def _tried(trial: Callable[[T, Path], Figures], point: T, folder: Path) -> Figures:
    """What came of one point; a failed assertion is what is wrong there."""
    try:
        found = trial(point, folder)
    except Exception:  # noqa: BLE001 - the other points are still tried, and the test fails with all that was said
        found = Figures(wrong=[traceback.format_exc()])
    if found.wrong:
        found.wrong.insert(0, f"--- {folder}: {point}")
    return found + Figures(points=1)


def spread(points: Sequence[T], share: int) -> list[T]:
    """Every `share`-th of the points, beginning in the middle of the first share."""
    return list(itertools.islice(points, share // 2, None, share))


def handed_over() -> list[dict[str, Any]]:
    """The figures as plain values, for another process."""
    return [dataclasses.asdict(figures) for figures in ALL]


def take_over(figures: list[dict[str, Any]]) -> None:
    """Add those of another process."""
    ALL.extend(Figures(**values) for values in figures)


def report() -> list[str]:
    """The figures as the lines of a table; also put into the file that PROVISIONING_TEST_FIGURES names, as JSON."""
    rows = [{name: getattr(figures, name) for name in ("sweep", *COUNTS)} for figures in ALL]
    if rows and (path := os.environ.get("PROVISIONING_TEST_FIGURES")):
        Path(path).write_text(json.dumps(rows, indent=2) + "\n")
    lines = [("sweep", *COUNTS), *(tuple(map(str, row.values())) for row in rows)] if rows else []
    return [first.ljust(44) + "".join(cell.rjust(9) for cell in rest) for first, *rest in lines]
