"""A spool of every past format is worked on, whatever state its workflows were in."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from provisioning.storage.check import check
from tests.installation import Installation

pytestmark = pytest.mark.nu

SPOOLS = sorted((Path(__file__).parents[1] / "data").glob("format-*"))


@pytest.mark.parametrize("spool", SPOOLS, ids=lambda path: path.name)
def test_a_spool_of_this_format_is_worked_on(spool: Path, tmp_path: Path, cache_dir: Path) -> None:
    shutil.copytree(spool, tmp_path / "spool")
    for folder, _, _ in os.walk(tmp_path / "spool"):
        os.chmod(folder, 0o700)
    site = Installation(tmp_path, cache_dir)
    try:
        assert check(site.spool.root) == []
        named = {site.folder(workflow_id).submission().name: workflow_id for workflow_id in site.spool.workflow_ids()}
        site.ask("resume", named["paused"])
        site.ask("retry", named["held"], "run")
        site.ask("retry", named["cancelled"])
        site.drain(max_wait=10)
        states = {name: site.state(workflow_id) for name, workflow_id in named.items()}
        assert [name for name, state in states.items() if state == "failed"] == ["failed", "postponed"], site.said()
        assert {state for name, state in states.items() if name not in ("failed", "postponed")} == {"succeeded"}
        assert site.outcomes(named["running"], "echo") == ["interrupted", "succeeded"]
        assert site.outcomes(named["held"], "run") == ["interrupted", "succeeded"]
        assert site.outcomes(named["postponed"], "fails") == ["failed", "failed"]
        assert site.outcomes(named["failed"], "fails") == ["failed"] * 4
        assert check(site.spool.root) == []
    finally:
        site.close()
