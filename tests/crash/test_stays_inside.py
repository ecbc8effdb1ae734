"""Whatever links lie in the spool, nothing outside it is removed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from provisioning.clock import new_ulid, now
from provisioning.errors import SpoolUnusable
from provisioning.orchestrator import retention
from provisioning.orchestrator.retention import Cleanup, Rule
from provisioning.storage import files, reading
from provisioning.storage.check import check
from provisioning.storage.naming import StrPath
from provisioning.storage.spool import FOLDERS, Spool
from tests.crash.host import Host


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is none of the spool's business, with a file in it and another below."""
    folder = tmp_path / "outside"
    (folder / "below").mkdir(parents=True)
    for path in (folder / "kept", folder / "below" / "kept"):
        path.write_text("kept")
    return folder


def is_whole(outside: Path) -> bool:
    return (outside / "kept").read_text() == (outside / "below" / "kept").read_text() == "kept"


def clean(host: Host) -> Cleanup:
    """A person has all that was rejected removed."""
    cleanup = Cleanup(host.person, Rule(0.0, None), now())
    cleanup.finish()
    return cleanup


def test_a_request_that_is_a_link_goes_and_what_it_points_to_stays(host: Host, outside: Path) -> None:
    (host.person.requests / f"{new_ulid()}.{new_ulid()}.json").symlink_to(outside)
    host.work()
    (rejected,) = host.person.rejected.iterdir()
    assert clean(host).rejected == [rejected.name]
    assert not list(host.person.rejected.iterdir())
    assert is_whole(outside)


def test_a_rejected_folder_that_becomes_a_link_on_its_way_out_is_not_followed(host: Host, outside: Path) -> None:
    rejected = host.person.rejected / "folder"
    rejected.mkdir()

    def swap() -> None:
        rejected.rmdir()
        rejected.symlink_to(outside)

    host.between("move", "*", swap)
    clean(host)
    assert is_whole(outside)
    assert not [path for path in host.person.tmp.iterdir() if path.is_symlink()]


def test_a_link_within_what_is_removed_is_not_followed(host: Host, outside: Path) -> None:
    rejected = host.person.rejected / "folder"
    rejected.mkdir()
    (rejected / "link").symlink_to(outside)
    (rejected / "file").symlink_to(outside / "kept")
    assert clean(host).problems == []
    assert is_whole(outside)


def test_what_is_to_be_removed_and_is_a_link_is_unlinked(tmp_path: Path, outside: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(outside)
    list(retention._removing(link))
    assert is_whole(outside)
    assert not link.is_symlink()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_spool_with_a_link_in_the_place_of_a_folder_is_not_worked(host: Host, outside: Path, name: str) -> None:
    shutil.rmtree(host.root / name)
    (host.root / name).symlink_to(outside)
    for begin in (Spool.open, Spool.create):
        with pytest.raises(SpoolUnusable, match=f"{name}.*link"):
            begin(host.root)
    assert [problem.code for problem in check(host.root)] == ["unusable"]


def test_a_spool_may_be_reached_through_a_link(host: Host, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(host.root)
    assert Spool.open(tmp_path / "link").root == tmp_path / "link"


def test_the_sweep_leaves_what_no_process_of_ours_has_named(host: Host, outside: Path) -> None:
    foreign = host.person.tmp / "holiday-photos"
    shutil.copytree(outside, foreign)
    dead = host.person.tmp / new_ulid()
    dead.mkdir()
    (dead / "link").symlink_to(outside)
    files.sweep_scratch(host.person.tmp)
    assert is_whole(foreign)
    assert is_whole(outside)
    assert not dead.exists()
    assert [(problem.code, problem.file) for problem in check(host.root)] == [("foreign-file", str(foreign))]


def test_a_scratch_folder_that_cannot_be_read_keeps_no_orchestrator_from_starting(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable = host.person.tmp / new_ulid()
    unreadable.mkdir()
    (unreadable / "group").write_text("{}")
    original = reading.open_regular

    def refuse(path: StrPath) -> int:
        if Path(path).parent == unreadable:
            raise SpoolUnusable(f"cannot read {path}: Permission denied")
        return original(path)

    monkeypatch.setattr(reading, "open_regular", refuse)
    workflow_id = host.submit()
    host.work()
    assert host.state(workflow_id) == "succeeded"
    assert unreadable.exists()
