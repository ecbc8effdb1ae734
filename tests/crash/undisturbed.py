"""The undisturbed run of the workflows: the calls in it that can be disturbed, and the end that all must have."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tests.crash.tracing import Call, Tracing, calls_of, changes, ended, logs_of, start_traced
from tests.crash.workload import End, Work, worked
from tests.figures import Figures

RUN = ("--until-empty", "--max-wait", "15", "--slots", "2")


class Undisturbed(NamedTuple):
    """How the workflows end when nothing happens, and the calls by which each process changes the spool."""

    ends: dict[str, End]
    calls: dict[str, list[Call]]
    publishing: list[Call]
    """Those of the orchestrator that put the operations into the spool, where they are not in it yet."""


def record(folder: Path, cache_dir: Path) -> Undisturbed:
    """Run them twice: in a new spool, and in one that has worked these operations before."""
    _, first = _recorded(folder / "first", cache_dir, claimed_before=False)
    publishing = [call for call in first["orchestrator"] if "/nulib/" in call.text or "/tree/" in call.text]
    return Undisturbed(*_recorded(folder / "later", cache_dir, claimed_before=True), publishing)


def _recorded(root: Path, cache_dir: Path, *, claimed_before: bool) -> tuple[dict[str, End], dict[str, list[Call]]]:
    with worked(root, cache_dir, claimed_before=claimed_before) as work:
        run = start_traced(work.site, Tracing((), (), "every"), *RUN)
        assert ended(work.site, run) == 1, work.site.said()
        calls = {
            log.name: [call for call in calls_of(log) if changes(call, work.site.spool.root)]
            for log in logs_of(work.site).iterdir()
        }
        ends = work.ends()
        assert (work.lost(ends), work.doubled(), work.litter()) == ([], [], [])
        return ends, calls


def judged(work: Work, undisturbed: Undisturbed) -> Figures:
    """Finish the work and compare it with the undisturbed run."""
    work.finish()
    lost, doubled, litter = work.lost(undisturbed.ends), work.doubled(), work.litter()
    wrong = [*lost, *doubled, *litter]
    if wrong:
        wrong.append(work.site.said())
    return Figures(asked=work.asked, done=work.done, lost=len(lost), doubled=len(doubled), wrong=wrong)
