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
from provisioning.storage.room import Room
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
def folder(outcomes: Path) -> Iterator[int]:
    """The folder, open."""
    descriptor = files.open_folder(outcomes)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def room(scratch: files.Scratch) -> Iterator[Room]:
    """Space for a file in that folder."""
    made = Room(scratch)
    made.make(1 << 16)
    yield made
    made.close()
    assert not scratch.path.exists() or names(scratch.path) == []


NO_ROOM = OSError(errno.ENOSPC, "full")


def test_a_file_is_published_and_the_room_stays_for_the_next(
    room: Room, scratch: files.Scratch, outcomes: Path, folder: int
) -> None:
    made, _ = kept = sorted(scratch.path.iterdir())
    assert made.stat().st_blocks * 512 >= 1 << 16
    room.publish(outcomes / "f", b"outcome", folder)
    assert ((outcomes / "f").read_bytes(), names(outcomes)) == (b"outcome", ["f"])
    room.make(1 << 16)
    assert sorted(scratch.path.iterdir()) == kept


@pytest.mark.parametrize(("call", "number"), [("write", 1), ("fsync", 1), ("link", 1), ("fsync", 2)])
def test_where_another_file_finds_no_room_the_one_that_was_made_takes_the_data(
    room: Room, outcomes: Path, folder: int, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    made = min(room._scratch.path.iterdir()).stat().st_ino
    failing(call, NO_ROOM, monkeypatch, number=number)
    room.publish(outcomes / "f", b"outcome", folder)
    found = (outcomes / "f").stat()
    assert (found.st_ino, (outcomes / "f").read_bytes()) == (made, b"outcome")
    assert names(room._scratch.path) == []
    room.make(10)
    assert len(names(room._scratch.path)) == 2


def test_room_takes_more_than_was_made(room: Room, outcomes: Path, folder: int) -> None:
    room.publish(outcomes / "f", b"x" * 100_000, folder)
    assert (outcomes / "f").stat().st_size == 100_000


def test_room_replaces_nothing(room: Room, outcomes: Path, folder: int) -> None:
    (outcomes / "f").write_bytes(b"old")
    with pytest.raises(SpoolUnusable, match="File exists"):
        room.publish(outcomes / "f", b"new", folder)
    assert ((outcomes / "f").read_bytes(), names(outcomes)) == (b"old", ["f"])


def test_room_is_published_where_its_folders_have_been_moved_to(room: Room, tmp_path: Path, folder: int) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("tmp", "outcomes"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    room.publish(tmp_path / "outcomes" / "f", b"outcome", folder)
    assert (tmp_path / "elsewhere" / "outcomes" / "f").read_bytes() == b"outcome"
    room.close()
    assert names(tmp_path / "elsewhere" / "tmp" / "mine") == []
    assert names(tmp_path) == ["elsewhere"]


@pytest.mark.parametrize("call", ["write", "ftruncate", "fsync", "link"])
def test_a_room_that_failed_is_gone_and_another_is_tried(
    room: Room, outcomes: Path, folder: int, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    original = getattr(os, call)
    synced: list[int] = []

    def refuse(*_args: object, **_rest: object) -> None:
        raise NO_ROOM

    def note(descriptor: int) -> None:
        assert os.fstat(descriptor).st_ino not in synced, "a file whose sync failed is not synced again"
        synced.append(os.fstat(descriptor).st_ino)
        if call == "fsync":
            refuse()
        original_sync(descriptor)

    original_sync = os.fsync
    with monkeypatch.context() as patched:
        if call == "ftruncate":  # only the room is cut: whatever it takes must be needed first
            failing("link", NO_ROOM, patched)
        if call != "fsync":
            patched.setattr(os, call, refuse)
        patched.setattr(os, "fsync", note)
        with pytest.raises(SpoolUnusable, match="No space left"):
            room.publish(outcomes / "f", b"new", folder)
    assert original is getattr(os, call)
    assert names(outcomes) == names(room._scratch.path) == []
    room.make(10)
    room.publish(outcomes / "f", b"new", folder)
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
    room, late = Room(scratch), Room(scratch)
    room.make(64 << 10)
    fill(small_disk)
    with pytest.raises(SpoolUnusable, match="cannot make room for"):
        late.make(64 << 10)
    assert len([name for name in names(scratch.path) if not name.endswith(".spare")]) == 1
    room.publish(small_disk / "outcome", b"y" * (60 << 10), folder := files.open_folder(small_disk))
    os.close(folder)
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
