"""What the proofs of a test session have found, in numbers: a table at its end."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any


@dataclasses.dataclass
class Figures:
    """What a proof has found, in numbers."""

    proof: str = ""
    points: int = 0
    """Points at which something was tried, states or histories that were looked at."""
    missed: int = 0
    """Points that nobody came to: nothing was tried there, and they are not counted as points."""
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
        return Figures(self.proof or other.proof, **values)


COUNTS = ("points", "missed", "struck", "aimed", "asked", "done", "lost", "doubled")


ALL: list[Figures] = []
"""Of every proof of this test session."""


def note(proof: str, *, points: int, struck: int = 0) -> None:
    """Take note of a proof that has found nothing wrong."""
    ALL.append(Figures(proof, points=points, struck=struck))


def handed_over() -> list[dict[str, Any]]:
    """The figures as plain values, for another process."""
    return [dataclasses.asdict(figures) for figures in ALL]


def take_over(figures: list[dict[str, Any]]) -> None:
    """Add those of another process."""
    ALL.extend(Figures(**values) for values in figures)


def report() -> list[str]:
    """The figures as the lines of a table; also put into the file that PROVISIONING_TEST_FIGURES names, as JSON."""
    found: dict[str, Figures] = {}
    for figures in ALL:
        found[figures.proof] = found.get(figures.proof, Figures()) + figures
    rows = [{name: getattr(figures, name) for name in ("proof", *COUNTS)} for figures in found.values()]
    if rows and (path := os.environ.get("PROVISIONING_TEST_FIGURES")):
        Path(path).write_text(json.dumps(rows, indent=2) + "\n")
    lines = [("proof", *COUNTS), *(tuple(map(str, row.values())) for row in rows)] if rows else []
    return [first.ljust(44) + "".join(cell.rjust(9) for cell in rest) for first, *rest in lines]
