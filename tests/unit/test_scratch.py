"""Scratch folders that outlive nobody, and room on a disk that becomes full."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioning.clock import new_ulid
from provisioning.errors import SpoolUnusable
from provisioning.storage import files, reading
from tests.simulation.faults import failing, names

DEAD, LIVING = sorted(new_ulid() for _ in range(2))
"""Names of scratch folders: others are not swept."""


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[files.Scratch]:
    (tmp_path / "tmp").mkdir()
    made = files.Scratch(tmp_path / "tmp" / "mine")
    yield made
    made.close()


# Room


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    """The folder in which files appear."""
    path = tmp_path / "outcomes"
    path.mkdir()
    return path


@pytest.fixture
def room(scratch: files.Scratch, outcomes: Path) -> Iterator[files.Room]:
    """Space for a file in that folder."""
    made = files.Room(scratch, outcomes)
    made.make(1 << 16)
    yield made
    made.close()
    assert not scratch.path.exists() or names(scratch.path) == []


def test_room_is_published_whole_and_shorter_than_it_was(
    room: files.Room, scratch: files.Scratch, outcomes: Path
) -> None:
    made, _ = sorted(scratch.path.iterdir())
    assert made.stat().st_blocks * 512 >= 1 << 16
    room.publish("f", b"outcome")
    assert ((outcomes / "f").read_bytes(), names(outcomes), names(scratch.path)) == (b"outcome", ["f"], [])


def test_room_takes_more_than_was_made(room: files.Room, outcomes: Path) -> None:
    room.publish("f", b"x" * 100_000)
    assert (outcomes / "f").stat().st_size == 100_000


def test_room_replaces_nothing(room: files.Room, outcomes: Path) -> None:
    (outcomes / "f").write_bytes(b"old")
    with pytest.raises(SpoolUnusable, match="File exists"):
        room.publish("f", b"new")
    assert ((outcomes / "f").read_bytes(), names(outcomes)) == (b"old", ["f"])


def test_room_is_published_where_its_folders_have_been_moved_to(room: files.Room, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("tmp", "outcomes"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    room.publish("f", b"outcome")
    assert (tmp_path / "elsewhere" / "outcomes" / "f").read_bytes() == b"outcome"
    assert names(tmp_path / "elsewhere" / "tmp" / "mine") == []
    assert names(tmp_path) == ["elsewhere"]


@pytest.mark.parametrize(("call", "number"), [("write", 1), ("ftruncate", 1), ("fsync", 1), ("link", 1), ("fsync", 2)])
def test_a_room_that_failed_is_gone_and_another_is_tried(
    room: files.Room, scratch: files.Scratch, outcomes: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    with monkeypatch.context() as patched:
        seen = failing(call, OSError(errno.ENOSPC, "full"), patched, number=number)
        with pytest.raises(SpoolUnusable, match="No space left"):
            room.publish("f", b"new")
        with pytest.raises(SpoolUnusable, match="there is no room"):
            room.publish("f", b"new")
        assert len(seen) == number  # a file whose sync failed is not synced again
    assert names(outcomes) == names(scratch.path) == []
    room.make(10)
    room.publish("f", b"new")
    assert (outcomes / "f").read_bytes() == b"new"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk: Path) -> None:
    def write_without_end() -> None:
        for number in range(1000):
            files.write_atomic(disk / f"fill-{number}", b"x" * 4096, durable=False)

    with pytest.raises(SpoolUnusable, match="No space left"):
        write_without_end()


@pytest.mark.root
def test_room_publishes_on_a_disk_that_has_become_full(small_disk: Path) -> None:
    scratch = files.Scratch(small_disk / "mine")
    room, late = files.Room(scratch, small_disk), files.Room(scratch, small_disk)
    room.make(64 << 10)
    fill(small_disk)
    with pytest.raises(SpoolUnusable, match="cannot make room for"):
        late.make(64 << 10)
    assert len([name for name in names(scratch.path) if not name.endswith(".spare")]) == 1
    room.publish("outcome", b"y" * (60 << 10))
    assert (small_disk / "outcome").read_bytes() == b"y" * (60 << 10)
    for each in (room, late, scratch):
        each.close()


@pytest.mark.root
def test_a_full_disk_keeps_the_old_file_and_is_named(small_disk: Path) -> None:
    files.write_atomic(small_disk / "f", b"old", durable=True)
    fill(small_disk)
    with pytest.raises(SpoolUnusable, match="No space left") as raised:
        files.write_atomic(small_disk / "f", b"n" * 8192, durable=True)
    assert "free some space" in raised.value.hint
    assert (small_disk / "f").read_bytes() == b"old"
    assert [name for name in names(small_disk) if name.startswith(".")] == []


# Scratch folders


def test_scratch_names_are_never_used_twice(scratch: files.Scratch) -> None:
    assert len({scratch.name() for _ in range(100)}) == 100


def test_a_closed_scratch_folder_is_gone(tmp_path: Path) -> None:
    scratch = files.Scratch(tmp_path / "s")
    files.write_new(scratch.name(), b"x", durable=False)
    assert reading.scratch_is_held(scratch.path)
    scratch.close()
    assert names(tmp_path) == []
    assert not reading.scratch_is_held(scratch.path)


def test_the_sweep_takes_what_the_dead_left_and_nothing_of_the_living(tmp_path: Path) -> None:
    alive = files.Scratch(tmp_path / LIVING)
    files.write_new(alive.name(), b"x", durable=False)
    program = (
        "import os, sys, pathlib; from provisioning.storage import files;"
        "s = files.Scratch(pathlib.Path(sys.argv[1])); files.write_new(s.name(), b'x', durable=False); os._exit(9)"
    )
    child = subprocess.run([sys.executable, "-c", program, str(tmp_path / DEAD)], check=False)
    assert (child.returncode, names(tmp_path)) == (9, [DEAD, LIVING])
    assert [reading.scratch_is_held(tmp_path / name) for name in (LIVING, DEAD)] == [True, False]
    (tmp_path / "file").write_bytes(b"no folder")
    files.sweep_scratch(tmp_path)
    assert (names(tmp_path), names(alive.path)) == ([LIVING, "file"], ["1"])
    alive.close()


@pytest.mark.parametrize("call", ["open", "flock"])
def test_a_folder_swept_while_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The sweep comes between the making and the opening, or between the opening and the locking."""
    module = os if call == "open" else fcntl
    original = getattr(module, call)

    def late(*args: Any, **rest: Any) -> Any:
        monkeypatch.setattr(module, call, original)
        files.sweep_scratch(tmp_path)
        return original(*args, **rest)

    monkeypatch.setattr(module, call, late)
    scratch = files.Scratch(tmp_path / LIVING)
    assert getattr(module, call) is original, "the sweep has not come"
    files.sweep_scratch(tmp_path)
    assert names(tmp_path) == [LIVING]
    files.write_new(scratch.name(), b"x", durable=False)
    scratch.close()


def test_a_slow_sweep_leaves_the_folder_that_was_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has opened a dead folder; before it locks it, another sweeps it and its name gets a living owner."""
    os.mkdir(tmp_path / LIVING)
    original = fcntl.flock
    living: list[files.Scratch] = []

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", original)
        os.rmdir(tmp_path / LIVING)
        living.append(files.Scratch(tmp_path / LIVING))
        original(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    files.sweep_scratch(tmp_path)
    assert (names(tmp_path), len(living)) == ([LIVING], 1)
    living[0].close()


def test_the_sweep_spares_what_it_is_told_to(tmp_path: Path) -> None:
    for name in (DEAD, LIVING):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(LIVING)
    files.sweep_scratch(tmp_path, {LIVING})
    assert names(tmp_path) == [LIVING, "link"]
    assert not reading.scratch_is_held(tmp_path / "link")
