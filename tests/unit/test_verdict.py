"""The verdict on an attempt of a cluster is that of the table in the format's document."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from provisioning.core.verdict import Standing, verdict

TEXTS = {
    "it has ended so": Standing.ENDED,
    "it waits, or runs": Standing.LIVE,
    "after `slurm.lost_seconds` without a sign of life it is interrupted": Standing.SILENT,
    "it is queued again under its name: the claim decides between two jobs": Standing.ABSENT,
    "nothing": Standing.UNKNOWN,
}
SAID = {"yes": (True,), "no": (False,), "unknown": (None,), "": (True, False)}


def test_the_verdicts_are_those_of_the_document() -> None:
    text = (Path(__file__).parents[2] / "spool" / "README.md").read_text()
    rows = text.split("| outcome | in Slurm's queue | claim | what follows |\n")[1].split("\n\n")[0].splitlines()[1:]
    seen = set()
    for row in rows:
        outcome, live, claim, follows = (cell.strip() for cell in row.strip("|").split("|"))
        queue = (True, False, None) if not live else SAID[live]
        for known in product(SAID[outcome], queue, SAID[claim]):
            assert verdict(outcome=bool(known[0]), live=known[1], claimed=bool(known[2])) is TEXTS[follows], row
            seen.add(known)
    assert seen == set(product((True, False), (True, False, None), (True, False))), "the table leaves nothing open"
