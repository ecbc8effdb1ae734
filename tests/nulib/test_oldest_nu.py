"""The oldest Nushell that is accepted does what the pinned one does.

That an older one is refused, and why, is said by tests/integration/test_catalogue.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from provisioning.execution.nushell import MINIMUM
from tests.nulib.attempts import NULIB

pytestmark = pytest.mark.nu

ROOT = NULIB.parent
OLDEST = ROOT / "packaging" / "nushell" / "oldest"
PROGRAM = OLDEST / "node_modules" / "@nushell" / "linux-x64" / "bin" / "nu"
PARTS = {
    "the tests in nu": ["tests/nulib/test_nulib.py", "tests/nulib/test_credentials.py"],
    "the operations without a server": ["tests/nulib/test_selftest.py"],
    "the catalogue and its entries": ["tests/integration/test_catalogue.py", "tests/integration/test_entries.py"],
    "the contract of the local provider": ["tests/nulib/test_provider_contract.py", "-k", "local"],
    "a workflow": ["tests/integration/test_clusters.py::test_a_cluster_lives_and_ends"],
}


@pytest.fixture(scope="module")
def oldest() -> Path:
    """That Nushell, installed as the pinned one is."""
    if PROGRAM.exists() and PROGRAM.stat().st_mtime > (OLDEST / "package-lock.json").stat().st_mtime:
        return PROGRAM
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: it brings the oldest Nushell")
    words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    done = subprocess.run(words, cwd=OLDEST, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"npm could not install the oldest Nushell: {done.stderr.strip()[-300:]}")
    os.utime(PROGRAM)
    return PROGRAM


def test_its_version_is_the_least_that_is_accepted() -> None:
    lock = json.loads((OLDEST / "package-lock.json").read_text())
    pinned = lock["packages"]["node_modules/@nushell/linux-x64"]["version"]
    assert pinned == ".".join(map(str, MINIMUM))
    assert f"oldest_nu={pinned}\n" in (ROOT / "packaging" / "dev").read_text()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", PARTS)
def test_it_runs(oldest: Path, part: str, tmp_path: Path) -> None:
    said = subprocess.run([oldest, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    assert said == ".".join(map(str, MINIMUM))
    options = ("-q", "-n0", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/t")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *PARTS[part]],
        cwd=ROOT,
        env=os.environ | {"PROVISIONING_NU": str(oldest)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
