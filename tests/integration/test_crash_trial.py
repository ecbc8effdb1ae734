"""`selftest crash`: that it kills where it says, and that it would notice what it looks for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from provisioning.config import Disk
from provisioning.orchestrator.trial import Trial
from tests.installation import Installation

pytestmark = pytest.mark.nu


def crash(site: Installation, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "provisioning", "selftest", "crash", *words]
    done = subprocess.run(
        command, env=site.environment, capture_output=True, text=True, cwd=site.root, timeout=100, check=False
    )
    assert done.returncode == code, done
    return done


def test_orchestrators_are_killed_and_nothing_is_lost_or_doubled(site: Installation) -> None:
    answer = json.loads(crash(site, "--points", "5", "--json").stdout)
    assert answer == {"points": 5, "kills": 5, "lost": 0, "doubled": 0, "problems": 0}
    assert os.listdir(site.spool.tmp) == []


def test_the_trial_is_made_where_it_is_asked_for_and_removed(site: Installation) -> None:
    place = site.root / "elsewhere"
    place.mkdir()
    assert crash(site, "--in", str(place), "--points", "1").stdout.startswith("1 points, 1 kills, 0 lost")
    assert os.listdir(place) == []


def test_a_folder_in_which_nothing_can_be_made_says_so(site: Installation) -> None:
    said = crash(site, "--in", "/proc/self", code=6).stderr
    assert "cannot make /proc/" in said
    assert "cannot remove" not in said


def test_a_folder_that_is_not_there_is_not_found(site: Installation) -> None:
    said = crash(site, "--in", "absent", code=4).stderr
    assert f"no folder {site.root / 'absent'}" in said


def test_a_disk_below_its_marks_is_named(site: Installation) -> None:
    site.settings(disk_free_bytes="900000000000GiB")
    said = crash(site, code=6).stderr
    assert "less than the 900000000000 GiB of disk.free_bytes" in said
    assert "does not end" not in said


def test_off_a_terminal_no_bar_is_begun(site: Installation) -> None:
    assert crash(site, "--points", "1").stderr == ""


def test_a_folder_that_others_could_change_is_refused(site: Installation) -> None:
    place = site.root / "open"
    place.mkdir()
    place.chmod(0o777)
    assert f"others may write {place}" in crash(site, "--in", str(place), code=5).stderr
    assert os.listdir(place) == []


def test_work_that_is_done_twice_is_noticed(site: Installation) -> None:
    """A mark that writes two lines is what an orchestrator that starts its task twice would leave."""
    nulib = site.root / "nulib"
    (nulib / "selftest").mkdir(parents=True)
    (nulib / "lib").symlink_to(Path(__file__).parents[2] / "nulib" / "lib")
    text = (Path(__file__).parents[2] / "nulib" / "selftest" / "mark.nu").read_text()
    (nulib / "selftest" / "mark.nu").write_text(text.replace('$"($line)\\n"', '$"($line)\\n($line)\\n"'))
    site.environment["PROVISIONING_NULIB"] = str(nulib)
    assert "doubled=3" in crash(site, code=6).stderr


def test_an_orchestrator_that_does_nothing_is_noticed(site: Installation) -> None:
    trial = Trial(
        site.root / "trial", site.catalogue, lambda _spool, _number: ["--version"], site.environment, disk=Disk()
    )
    before = os.listdir("/proc/self/fd")
    [found] = trial.points([1])
    assert os.listdir("/proc/self/fd") == before, "what was opened is closed"
    assert not found.killed
    assert found.lost >= 5, "three tasks, the one that fails and the workflow"
    assert found.doubled == 0


def test_the_process_dies_just_before_the_named_write(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from provisioning.storage import files\n"
        "from provisioning.storage.points import WritePoints\n"
        "root = Path(sys.argv[1]); points = WritePoints(root, int(sys.argv[2]))\n"
        "files.write_atomic(root / 'a', b'1', durable=True); files.remove(root / 'a')\n"
        "print(points.seen)\n"
    )

    def run(number: int) -> tuple[int, str, int]:
        root = tmp_path / str(number)
        root.mkdir()
        done = subprocess.run([sys.executable, "-c", script, root, str(number)], capture_output=True, text=True)  # noqa: PLW1510
        return done.returncode, done.stdout.strip(), len([name for name in os.listdir(root) if name == "a"])

    assert run(0) == (0, "3", 0), "opened, renamed, removed"
    assert run(1) == (-signal.SIGKILL, "", 0)
    assert run(2) == (-signal.SIGKILL, "", 0)
    assert run(3) == (-signal.SIGKILL, "", 1)
