"""`spool backup -` in a pipe, and `spool check --repair --json` as a script reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from provisioning.clock import new_ulid
from provisioning.core.workflow import FORMAT, Request
from provisioning.storage.check import check
from provisioning.storage.spool import Spool
from tests.installation import Installation
from tests.simulation.values import EPOCH

pytestmark = pytest.mark.nu


def run(site: Installation, *arguments: object, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "provisioning", *map(str, arguments)],
        env=site.environment,
        input=given,
        check=False,
        capture_output=True,
    )


def test_a_backup_goes_through_a_pipe(site: Installation, tmp_path: Path) -> None:
    workflow_id = site.submit([site.mark("a")], id="nightly")
    made = run(site, "spool", "backup", "-")
    assert (made.returncode, b"backed up workflows: 1 queued; 0 running tasks" in made.stderr) == (0, True)
    copy = tmp_path / "copy"
    restored = run(site, "spool", "restore", "-", copy, given=made.stdout)
    assert (restored.returncode, restored.stdout) == (0, f"{copy}\n".encode())
    assert (Spool.open(copy).workflow_ids(), check(copy)) == ([workflow_id], [])


def test_a_backup_that_a_broken_pipe_cut_off_is_not_restored(site: Installation, tmp_path: Path) -> None:
    site.submit([site.mark("a")])
    made = run(site, "spool", "backup", "-").stdout
    restored = run(site, "spool", "restore", "-", tmp_path / "copy", given=made[: made.index(b"backup.json")])
    assert (restored.returncode, restored.stdout) == (6, b"")
    assert not (tmp_path / "copy").exists()


def test_json_is_refused_where_stdout_carries_the_backup(site: Installation) -> None:
    refused = run(site, "spool", "backup", "-", "--json")
    assert (refused.returncode, b"ustar" in refused.stdout) == (2, False)


def test_a_repair_says_as_json_what_was_mended_and_what_is_left(site: Installation) -> None:
    workflow_id = site.submit([site.mark("a")])
    stray = site.spool.root / "stray"
    stray.write_bytes(b"mine")
    request = Request(FORMAT, new_ulid(), workflow_id, "pause", "tester", EPOCH)
    site.spool.request(request)
    newer = site.spool.requests / f"{workflow_id}.{request.request_id}.json"
    newer.write_bytes(newer.read_bytes().replace(b'"format":1', b'"format":2'))

    mended = run(site, "spool", "check", "--repair", "--json")
    page = json.loads(mended.stdout)
    steps = {(step["done"], step["code"], step["file"]) for step in page["repairs"]}
    assert steps == {(True, "foreign-file", str(stray)), (False, "newer", str(newer))}
    assert [(each["code"], each["file"]) for each in page["problems"]] == [("newer", str(newer))]
    assert (mended.returncode, page["ok"], stray.exists()) == (6, False, False)

    newer.unlink()
    sound = run(site, "spool", "check", "--repair", "--json")
    assert (sound.returncode, json.loads(sound.stdout)) == (0, {"ok": True, "repairs": [], "problems": []})


def test_no_name_of_a_file_adds_a_line_to_what_a_check_says(site: Installation, tmp_path: Path) -> None:
    root = tmp_path / "spool"
    Spool.create(root).close()
    (root / "x\nok\x1b[2J").touch()
    done = run(site, "spool", "check", root)
    assert done.returncode == 6
    assert done.stdout.decode().splitlines()[0].startswith(f"foreign-file: {root}/x\\nok\\x1b[2J: ")
    assert b"ok" not in done.stdout.splitlines()
    assert done.stderr.decode().splitlines()[-1].endswith(f"provisioning spool check --repair {root}")


def test_what_only_a_person_can_mend_is_not_said_to_be_repaired(site: Installation, tmp_path: Path) -> None:
    done = run(site, "spool", "check", tmp_path / "none")
    assert (done.returncode, done.stderr) == (6, b"")
    assert done.stdout.startswith(b"unusable: ")


def test_what_is_damaged_in_a_backup_is_named_and_restored(site: Installation, tmp_path: Path) -> None:
    workflow_id = site.run([site.mark("a")])
    (site.spool.workflows / workflow_id / "tasks" / "a.json").write_text("{")
    backup, copy = tmp_path / "b.tgz", tmp_path / "copy"
    made = run(site, "spool", "backup", backup)
    assert made.returncode == 0
    done = run(site, "spool", "restore", backup, copy)
    assert (done.returncode, done.stdout) == (0, f"{copy}\n".encode())
    said = done.stderr.decode()
    assert f"damaged: {copy}/workflows/{workflow_id}/tasks/a.json: " in said
    assert f"provisioning spool check --repair {copy}" in said
    assert "stop the original" in said


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("backup", "none/b.tgz"), 4), (("restore", "none.tgz", "copy"), 4), (("init", "file"), 5)],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_wrong_path_is_no_fault_of_a_spool(
    site: Installation, tmp_path: Path, arguments: tuple[str, ...], code: int
) -> None:
    (tmp_path / "file").touch()
    done = run(site, "spool", arguments[0], *(tmp_path / name for name in arguments[1:]))
    assert (done.returncode, done.stdout) == (code, b"")
    assert b"spool check" not in done.stderr
