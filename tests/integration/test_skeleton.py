"""The yardstick that makes the system calls of attempts and no more does make them: its figure is of something real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmark import skeleton
from tests.installation import Installation
from tests.integration.entry_runs import nu_to_test

pytestmark = pytest.mark.nu


def test_it_leaves_the_files_of_each_attempt(site: Installation, tmp_path: Path) -> None:
    assert site.start("selftest", "noop").wait(30) == 0, site.said()
    (entry,) = site.spool.root.glob("nulib/*/entries/selftest.noop.nu")
    words = [
        str(nu_to_test().path),
        str(entry),
        '{"params":{},"env":{"PATH":"/usr/bin"}}',
        "2",
        "5",
        str(tmp_path / "s"),
    ]
    subprocess.run([sys.executable, "-I", str(skeleton.__file__), *words], check=True, timeout=60)
    names = [f"t{number}" for number in range(5)]
    for name in names:
        outcome = json.loads((tmp_path / "s" / "outcomes" / f"{name}.1.json").read_text())
        assert outcome == {"task_id": name, "answer": '{"result":null}'}
        assert json.loads((tmp_path / "s" / "tasks" / f"{name}.json").read_text())["state"] == "succeeded"
        assert (tmp_path / "s" / "logs" / f"{name}.1.log").exists()
    assert len((tmp_path / "s" / "events.jsonl").read_text().splitlines()) == 2 * len(names)
