"""What a sweep makes of points that were missed: a proof that tried nothing is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash import sweep as sweeping
from tests.crash.sweep import MissedError, sweep
from tests.figures import Figures


@pytest.mark.parametrize(
    ("points", "missed", "fails"), [(1, 0, 0), (1, 1, 1), (9, 1, 0), (9, 2, 1), (40, 3, 0), (40, 4, 1)]
)
def test_a_few_may_be_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: int, missed: int, fails: int
) -> None:
    monkeypatch.setattr(sweeping, "ALL", [])

    def trial(point: int, _: Path) -> Figures:
        if point < missed:
            raise MissedError
        return Figures(struck=1)

    if fails:
        with pytest.raises(AssertionError, match=f"{missed} of {points} points were missed"):
            sweep("trial", range(points), trial, tmp_path)
        return
    found = sweep("trial", range(points), trial, tmp_path)
    assert (found.points, found.missed, found.struck) == (points - missed, missed, points - missed)
