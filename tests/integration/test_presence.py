"""The spool is renamed, or another is put in its place, while processes work it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from provisioning.clock import new_ulid
from provisioning.storage.spool import Spool
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

Gates = Callable[[str], Gate]
AWAY, BACK = "no longer at its path", "back at its path"


@pytest.fixture
def moved(site: Installation) -> Iterator[Path]:
    """Where the spool goes; afterwards it is put back, so that what still lives in it can be ended."""
    target = site.root / "moved"
    yield target
    if target.exists():
        if site.spool.root.exists():
            site.spool.root.rename(site.root / "other")
        target.rename(site.spool.root)


def log_lines(spool: Path, text: str) -> int:
    return (spool / "logs" / "orchestrator.log").read_text().count(text)


def everything(root: Path) -> dict[str, tuple[int, int]]:
    """Every name below the folder, with what changes when it is written."""
    found = {}
    for folder, folders, names in os.walk(root):
        for path in (Path(folder, name) for name in (*folders, *names)):
            status = path.lstat()
            found[str(path.relative_to(root))] = (status.st_ino, status.st_mtime_ns)
    return found


def test_a_spool_that_is_away_is_waited_for(site: Installation, gate: Gates, moved: Path) -> None:
    one = gate("one")
    tasks = [{"id": "a", "operation": "trial.shell", "params": {"script": one.script}}]
    workflow_id = site.submit([*tasks, site.mark("b", depends_on=["a"])])
    process = site.orchestrator()
    one.reached()
    site.spool.root.rename(moved)
    wait_for(lambda: log_lines(moved, AWAY))
    assert not site.spool.root.exists(), "nothing made the folder anew"
    moved.rename(site.spool.root)
    wait_for(lambda: log_lines(site.spool.root, BACK))
    one.open()
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "a") == ["succeeded"]
    assert site.mark_lines() == ["b"]
    assert (log_lines(site.spool.root, AWAY), log_lines(site.spool.root, BACK)) == (1, 1)
    assert process.poll() is None


def test_nothing_starts_while_the_spool_is_away(site: Installation, moved: Path) -> None:
    first = site.submit([site.mark("a")])
    site.orchestrator()
    site.wait_ended(first)
    manifest, form = site.folder(first).manifest()
    submission = msgspec.structs.replace(site.folder(first).submission(), workflow_id=new_ulid())
    site.spool.root.rename(moved)
    wait_for(lambda: log_lines(moved, AWAY))
    away = Spool.open(moved)
    second = away.submit(manifest, form, submission)
    away.nudge()
    away.close()
    assert away.incoming_ids() == [second]
    moved.rename(site.spool.root)
    assert site.wait_ended(second) == "succeeded"
    assert log_lines(site.spool.root, BACK) == 1


def test_a_renamed_spool_still_has_its_one_orchestrator(site: Installation, moved: Path) -> None:
    first = site.orchestrator()
    site.spool.root.rename(moved)
    second = site.start("orchestrator", "run", environment={"PROVISIONING_SPOOL": str(moved)})
    assert second.wait(20) == 6
    assert f"is held by pid {first.pid}" in site.said()


def test_another_spool_at_the_path_stops_the_orchestrator_and_is_left_as_it_was(
    site: Installation, gate: Gates, moved: Path
) -> None:
    one = gate("one")
    workflow_id = site.submit([{"id": "a", "operation": "trial.shell", "params": {"script": one.script}}])
    process = site.orchestrator()
    one.reached()
    other = Spool.create(site.root / "other")
    manifest, form = site.folder(workflow_id).manifest()
    waiting = other.submit(manifest, form, site.folder(workflow_id).submission())
    other.close()
    before = everything(other.root)
    site.spool.root.rename(moved)
    other.root.rename(site.spool.root)
    assert process.wait(20) == 6
    assert f"another spool is at {site.spool.root} now" in site.said()
    assert log_lines(moved, "another spool is at the path") == 1
    assert everything(site.spool.root) == before
    assert site.spool.incoming_ids() == [waiting]


@pytest.mark.parametrize("arguments", [["orchestrator", "run", "--until-empty"], ["trial", "shell"]])
def test_who_has_no_reason_to_wait_for_it_ends(
    site: Installation, gate: Gates, moved: Path, arguments: list[str]
) -> None:
    one = gate("one")
    if "--until-empty" in arguments:
        site.submit([{"id": "shell", "operation": "trial.shell", "params": {"script": one.script}}])
    else:
        arguments = [*arguments, one.script]
    process = site.start(*arguments)
    one.reached()
    site.spool.root.rename(moved)
    assert process.wait(20) == 6
    assert f"the spool is no longer at {site.spool.root}" in site.said()
    moved.rename(site.spool.root)
    (workflow_id,) = site.spool.claimed_ids()
    site.orchestrator()
    one.open()
    assert site.wait_ended(workflow_id) == "succeeded"
    assert site.outcomes(workflow_id, "shell") == ["succeeded"]
