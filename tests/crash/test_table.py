"""The table "What a crash can leave" in spool/README.md and its tests, `test_table_*.py`, have the same rows.

A test has the name of its row: it makes that state, recovers, and holds what is then there to what the row says.
Where a crash is named, the program's own code has written all that is there.
"""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[2] / "spool" / "README.md"


def rows() -> list[str]:
    """The names of the rows, from the first column of the table."""
    text = README.read_text(encoding="utf-8").partition("## What a crash can leave")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)


def test_every_row_has_its_test_and_every_test_its_row() -> None:
    modules = Path(__file__).parent.glob("test_table_*.py")
    tested = [name for module in modules for name in re.findall(r"^def (test_\w+)", module.read_text(), re.MULTILINE)]
    assert len(rows()) == len(set(rows())) > 30
    assert sorted(tested) == sorted(f"test_{row.replace('-', '_')}" for row in rows())
