"""The marks of the disk: what is free is held against them, and nothing is accepted below one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from provisioning.config import Config, Disk
from provisioning.errors import UsageError
from provisioning.storage.disk import DiskLow, shortage, size_text
from provisioning.storage.spool import Spool
from tests.simulation.values import submission

ONE = "01kc0000000000000000000001"
Free = Callable[..., None]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Free:
    """Sets what statvfs says."""

    def have(blocks: int, inodes: int = 5000, files: int = 10000) -> None:
        found = SimpleNamespace(
            f_bavail=blocks, f_bfree=blocks + 999, f_frsize=4096, f_bsize=1 << 20, f_favail=inodes, f_files=files
        )
        monkeypatch.setattr(os, "statvfs", lambda _path: found)

    return have


@pytest.mark.parametrize(
    ("blocks", "inodes", "files", "key"),
    [
        (256, 100, 1000, None),
        (255, 100, 1000, "disk.free_bytes"),
        (256, 99, 1000, "disk.free_inodes"),
        (256, 0, 0, None),
        (0, 0, 0, "disk.free_bytes"),
    ],
)
def test_what_is_free_is_held_against_both_marks(
    free: Free, blocks: int, inodes: int, files: int, key: str | None
) -> None:
    free(blocks, inodes, files)
    found = shortage(Path("/spool"), Disk(free_bytes=1 << 20, free_inodes=100))
    assert (found is None) == (key is None)
    if found is not None:
        assert found.exit_code == 6
        assert str(key) in found.message
        assert str(key) in found.hint
        assert "/spool" in found.message


def test_a_mark_of_nothing_is_none(free: Free) -> None:
    free(0, 0)
    assert shortage(Path("/spool"), Disk(free_bytes=0, free_inodes=0)) is None


def test_the_marks_come_from_the_config() -> None:
    environ = {"PROVISIONING_DISK_FREE_BYTES": "1GiB", "PROVISIONING_DISK_FREE_INODES": "0"}
    assert Config.load({}, environ, euid=os.geteuid()).disk == Disk(free_bytes=1 << 30, free_inodes=0)
    assert Config.load({}, {}, euid=os.geteuid()).disk == Disk(free_bytes=64 << 20, free_inodes=1000)
    for name, value in (("PROVISIONING_DISK_FREE_BYTES", "-1"), ("PROVISIONING_DISK_FREE_INODES", "1.5")):
        with pytest.raises(UsageError, match=name):
            Config.load({}, {name: value}, euid=os.geteuid())


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (64 << 20, "64 MiB"), (1 << 31, "2 GiB")],
)
def test_a_size_is_said_in_the_unit_that_fits(size: int, text: str) -> None:
    assert size_text(size) == text


DOORS: dict[str, Callable[[Spool], object]] = {
    "submit": lambda spool: spool.submit(b"{}", "json", submission(ONE)),
    "submit with an id": lambda spool: spool.submit(b"{}", "json", submission(ONE, id="nightly")),
    "submit_held": lambda spool: spool.submit_held(b"{}", "json", submission(ONE)),
}


@pytest.mark.parametrize("door", DOORS)
def test_below_a_mark_nothing_is_accepted_by_any_door(tmp_path: Path, free: Free, door: str) -> None:
    Spool.create(tmp_path / "spool").close()
    spool = Spool.open(tmp_path / "spool", Disk(free_bytes=1 << 20, free_inodes=0))
    free(255)
    with pytest.raises(DiskLow):
        DOORS[door](spool)
    assert [os.listdir(spool.root / name) for name in ("incoming", "ids", "tmp")] == [[], [], []]
    free(256)
    assert spool.submit(b"{}", "json", submission(ONE, id="nightly")) == ONE
    spool.close()
