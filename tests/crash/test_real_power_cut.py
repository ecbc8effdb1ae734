"""The power goes while a spool on ext4 or xfs is worked: the file system forgets, as it does, what was not synced."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import figures
from tests.crash.real_cuts import CANNOT_MOUNT, MAKE

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.nu, pytest.mark.root]


def cut_often(kind: str, folder: Path, *, first: int, count: int) -> None:
    """Cut so many times, in namespaces that end with their first process: nothing stays mounted or running."""
    for program in (MAKE[kind][0], "unshare", "mount", "umount"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing")
    own = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    ran = subprocess.run(
        [*own, sys.executable, "-m", "tests.crash.real_cuts", kind, str(folder), str(first), str(count)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode == CANNOT_MOUNT:
        pytest.skip(f"no loop devices, or no {kind}: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    reports = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [report["seed"] for report in reports] == list(range(first, first + count))
    assert any(report["under_way"] for report in reports), "nothing was under way at any cut"
    figures.note(f"power cut of {kind}", points=count)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_work_goes_on_after_the_power_was_cut(kind: str, tmp_path: Path) -> None:
    cut_often(kind, tmp_path, first=0, count=5)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("first", range(5, 50, 9))
def test_work_goes_on_after_more_cuts(kind: str, tmp_path: Path, first: int) -> None:
    cut_often(kind, tmp_path, first=first, count=9)
