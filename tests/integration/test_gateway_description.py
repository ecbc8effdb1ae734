"""Everything that /openapi.json allows, and much that it does not, asked of a real gateway by schemathesis."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateway import Gateway
from tests.installation import Installation

pytestmark = pytest.mark.nu

CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 404, 409, 410, 422]  # a schema does not say which workflows and infras there are
"""
KNOWN = '[parameters]\n"path.id" = "{}"\n"path.task" = "a"\n'
"""A workflow that has ended and its task: so that calls get further than to what is not there."""
ONE_ROW = r"^/workflows/(?!selftest/|batch|\{)[a-z-]+/"
"""Paths of operations: they have one row in the table of routes, so that those of one domain stand for all."""


@pytest.fixture
def door(site: Installation) -> Gateway:
    """One whose spool is worked."""
    site.orchestrator()
    return Gateway(site)


def asked(door: Gateway, folder: Path, *more: str, known: str = "") -> None:
    (folder / "schemathesis.toml").write_text(CONFIG + known)
    done = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "--config-file", "schemathesis.toml", "run",
         f"http://127.0.0.1:{door.port}/openapi.json", "--checks", "all", "--request-timeout", "20", "--seed", "1",
         "--no-color", *more],
        cwd=folder, env={"PATH": os.environ["PATH"], "HOME": str(folder)}, capture_output=True, text=True,
        timeout=1500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2000:]
    assert "internal error" not in door.said
    assert door.get("/workflows").status == 200


def test_it_keeps_to_its_description(door: Gateway, tmp_path: Path) -> None:
    workflow_id = door.site.submit([{"id": "a", "operation": "selftest.noop"}])
    door.site.wait_ended(workflow_id)
    few = ("--phases", "fuzzing,stateful", "--max-examples", "3", "--exclude-path-regex", f"{ONE_ROW}|/events$")
    asked(door, tmp_path, *few, known=KNOWN.format(workflow_id))


@pytest.mark.long
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("known", [False, True])
def test_it_keeps_to_its_description_whatever_is_asked(door: Gateway, tmp_path: Path, known: bool) -> None:
    workflow_id = door.site.submit([{"id": "a", "operation": "selftest.noop"}])
    door.site.wait_ended(workflow_id)
    many = ("--max-examples", "50", "--exclude-path-regex", ONE_ROW)
    asked(door, tmp_path, *many, known=KNOWN.format(workflow_id) if known else "")
