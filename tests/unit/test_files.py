"""How files come to be: whole or not at all, whatever call fails, and scratch folders that outlive nobody."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioning.errors import SpoolUnusable
from provisioning.storage import files


class PowerCut(BaseException):
    """The process ends here: nothing that it would have done afterwards is done."""


def failing(call: str, error: BaseException, monkeypatch: pytest.MonkeyPatch, *, number: int = 1) -> list[Any]:
    """Make the `number`-th use of os.`call` fail; what it was used on."""
    original: Callable[..., Any] = getattr(os, call)
    seen: list[Any] = []

    def replacement(*args: Any, **rest: Any) -> Any:
        seen.append(args[0])
        if len(seen) == number:
            raise error
        return original(*args, **rest)

    monkeypatch.setattr(os, call, replacement)
    return seen


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path))


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[files.Scratch]:
    (tmp_path / "tmp").mkdir()
    made = files.Scratch(tmp_path / "tmp" / "mine")
    yield made
    made.close()


# write_atomic


@pytest.mark.parametrize("durable", [True, False])
def test_write_atomic_replaces(tmp_path: Path, durable: bool) -> None:
    for data in (b"old", b"new and longer", b""):
        files.write_atomic(tmp_path / "f", data, durable=durable)
        assert (tmp_path / "f").read_bytes() == data
    assert names(tmp_path) == ["f"]
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("in_scratch", [True, False])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_an_error_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path,
    scratch: files.Scratch,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    in_scratch: bool,
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "f").write_bytes(b"old")
    with monkeypatch.context() as patched:
        seen = failing(call, OSError(number, os.strerror(number)), patched)
        with pytest.raises(SpoolUnusable, match=os.strerror(number)) as raised:
            files.write_atomic(folder / "f", b"new", durable=True, scratch=scratch if in_scratch else None)
    assert len(seen) == 1  # in particular, a file whose sync failed is not synced again
    assert str(folder / "f") in raised.value.message
    assert (folder / "f").read_bytes() == b"old"
    assert (names(folder), names(scratch.path)) == (["f"], [])


@pytest.mark.parametrize(("call", "content"), [("fsync", b"old"), ("rename", b"old"), ("write", b"old")])
def test_a_crash_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, content: bytes
) -> None:
    (tmp_path / "f").write_bytes(b"old")
    with monkeypatch.context() as patched:
        failing(call, PowerCut(), patched)
        with pytest.raises(PowerCut):
            files.write_atomic(tmp_path / "f", b"new", durable=True)
    assert (tmp_path / "f").read_bytes() == content


def test_a_crash_after_the_rename_leaves_the_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"old")
    with monkeypatch.context() as patched:
        failing("fsync", PowerCut(), patched, number=2)  # the second is that of the folder
        with pytest.raises(PowerCut):
            files.write_atomic(tmp_path / "f", b"new", durable=True)
    assert (tmp_path / "f").read_bytes() == b"new"


def test_durable_syncs_the_file_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    sync, rename = os.fsync, os.rename

    def note_sync(descriptor: int) -> None:
        said.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        sync(descriptor)

    def note_rename(*args: Any) -> None:
        said.append("rename")
        rename(*args)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note_rename)
    files.write_atomic(tmp_path / "f", b"x", durable=True)
    assert said == ["file", "rename", "folder"]
    said.clear()
    files.write_atomic(tmp_path / "f", b"x", durable=False)
    assert said == ["rename"]
    said.clear()
    files.move(tmp_path / "f", tmp_path / "g")
    assert said == ["rename", "folder", "folder"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:3]))
    files.write_atomic(tmp_path / "f", b"0123456789", durable=False)
    assert (tmp_path / "f").read_bytes() == b"0123456789"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpoolUnusable, match=r"cannot write .*/gone/f: No such file"):
        files.write_atomic(tmp_path / "gone" / "f", b"x", durable=False)


def test_write_new_replaces_nothing_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("f", "link"):
        with pytest.raises(FileExistsError):
            files.write_new(tmp_path / name, b"new", durable=False)
    assert (names(tmp_path), (tmp_path / "f").read_bytes()) == (["f", "link"], b"old")


# write_once


def test_write_once_is_won_once(tmp_path: Path, scratch: files.Scratch) -> None:
    assert files.write_once(tmp_path / "f", b"first", scratch=scratch)
    assert not files.write_once(tmp_path / "f", b"second", scratch=scratch)
    assert (tmp_path / "f").read_bytes() == b"first"
    assert names(scratch.path) == []


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_write_once_fails_whole(
    tmp_path: Path, scratch: files.Scratch, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with monkeypatch.context() as patched:
        failing(call, OSError(errno.ENOSPC, "full"), patched)
        with pytest.raises(SpoolUnusable):
            files.write_once(tmp_path / "f", b"x", scratch=scratch)
    assert (names(tmp_path), names(scratch.path)) == (["tmp"], [])
    assert files.write_once(tmp_path / "f", b"x", scratch=scratch)


# Room


def test_room_is_published_whole_and_shorter_than_it_was(tmp_path: Path) -> None:
    room = files.Room(tmp_path / "room", 1 << 16)
    assert os.stat(tmp_path / "room").st_blocks * 512 >= 1 << 16
    room.publish(tmp_path / "f", b"outcome")
    assert ((tmp_path / "f").read_bytes(), names(tmp_path)) == (b"outcome", ["f"])


def test_room_takes_more_than_was_made(tmp_path: Path) -> None:
    files.Room(tmp_path / "room", 10).publish(tmp_path / "f", b"x" * 1000)
    assert (tmp_path / "f").stat().st_size == 1000


def test_room_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    room = files.Room(tmp_path / "room", 10)
    with pytest.raises(SpoolUnusable, match="File exists"):
        room.publish(tmp_path / "f", b"new")
    room.close()
    assert ((tmp_path / "f").read_bytes(), names(tmp_path)) == (b"old", ["f"])


def test_room_is_tried_again_after_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = files.Room(tmp_path / "room", 10)
    for call in ("write", "ftruncate", "link"):
        with monkeypatch.context() as patched:
            failing(call, OSError(errno.ENOSPC, "full"), patched)
            with pytest.raises(SpoolUnusable):
                room.publish(tmp_path / "f", b"new")
        assert not (tmp_path / "f").exists()
    room.publish(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new"


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
    room = files.Room(small_disk / "room", 64 << 10)
    fill(small_disk)
    with pytest.raises(SpoolUnusable, match="cannot make room for"):
        files.Room(small_disk / "late", 64 << 10)
    assert not (small_disk / "late").exists()
    room.publish(small_disk / "outcome", b"y" * (60 << 10))
    assert (small_disk / "outcome").read_bytes() == b"y" * (60 << 10)


@pytest.mark.root
def test_a_full_disk_keeps_the_old_file_and_is_named(small_disk: Path) -> None:
    files.write_atomic(small_disk / "f", b"old", durable=True)
    fill(small_disk)
    with pytest.raises(SpoolUnusable, match="No space left") as raised:
        files.write_atomic(small_disk / "f", b"n" * 8192, durable=True)
    assert "free some space" in raised.value.hint
    assert (small_disk / "f").read_bytes() == b"old"
    assert [name for name in names(small_disk) if name.startswith(".")] == []


# Trees


def test_publish_tree_appears_whole(tmp_path: Path) -> None:
    files.publish_tree({"a/b/c.nu": b"1", "d.nu": b"2"}, tmp_path / "tree")
    assert (tmp_path / "tree/a/b/c.nu").read_bytes() == b"1"
    assert names(tmp_path) == ["tree"]
    files.publish_tree({"other": b"3"}, tmp_path / "tree")
    assert names(tmp_path / "tree") == ["a", "d.nu"]


@pytest.mark.parametrize(("call", "number"), [("open", 1), ("write", 2), ("fsync", 1), ("fsync", 3), ("rename", 1)])
def test_publish_tree_fails_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    with monkeypatch.context() as patched:
        failing(call, OSError(errno.EIO, "broken"), patched, number=number)
        with pytest.raises(SpoolUnusable):
            files.publish_tree({"a/b.nu": b"1", "c.nu": b"2"}, tmp_path / "tree")
    assert names(tmp_path) == []


def test_publish_tree_says_when_the_folder_could_not_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing("fsync", OSError(errno.EIO, "broken"), monkeypatch, number=4)  # two files, the tree, then its parent
    with pytest.raises(SpoolUnusable):
        files.publish_tree({"a.nu": b"1", "b.nu": b"2"}, tmp_path / "tree")


def test_publish_tree_is_content_when_another_was_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def late(source: Any, target: Any) -> None:
        monkeypatch.setattr(os, "rename", rename)
        files.publish_tree({"first": b"1"}, tmp_path / "tree")
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    files.publish_tree({"second": b"2"}, tmp_path / "tree")
    assert (names(tmp_path), names(tmp_path / "tree")) == (["tree"], ["first"])


# Scratch folders


def test_scratch_names_are_never_used_twice(scratch: files.Scratch) -> None:
    assert len({scratch.name() for _ in range(100)}) == 100


def test_a_closed_scratch_folder_is_gone(tmp_path: Path) -> None:
    scratch = files.Scratch(tmp_path / "s")
    files.write_new(scratch.name(), b"x", durable=False)
    assert files.scratch_is_held(scratch.path)
    scratch.close()
    assert names(tmp_path) == []
    assert not files.scratch_is_held(scratch.path)


def test_the_sweep_takes_what_the_dead_left_and_nothing_of_the_living(tmp_path: Path) -> None:
    alive = files.Scratch(tmp_path / "alive")
    files.write_new(alive.name(), b"x", durable=False)
    program = (
        "import os, sys, pathlib; from provisioning.storage import files;"
        "s = files.Scratch(pathlib.Path(sys.argv[1])); files.write_new(s.name(), b'x', durable=False); os._exit(9)"
    )
    child = subprocess.run([sys.executable, "-c", program, str(tmp_path / "dead")], check=False)
    assert (child.returncode, names(tmp_path)) == (9, ["alive", "dead"])
    assert [files.scratch_is_held(tmp_path / name) for name in ("alive", "dead")] == [True, False]
    (tmp_path / "file").write_bytes(b"no folder")
    files.sweep_scratch(tmp_path)
    assert (names(tmp_path), names(alive.path)) == (["alive", "file"], ["1"])
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
    scratch = files.Scratch(tmp_path / "mine")
    assert getattr(module, call) is original, "the sweep has not come"
    files.sweep_scratch(tmp_path)
    assert names(tmp_path) == ["mine"]
    files.write_new(scratch.name(), b"x", durable=False)
    scratch.close()


def test_a_slow_sweep_leaves_the_folder_that_was_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has opened a dead folder; before it locks it, another sweeps it and its name gets a living owner."""
    os.mkdir(tmp_path / "mine")
    original = fcntl.flock
    living: list[files.Scratch] = []

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", original)
        os.rmdir(tmp_path / "mine")
        living.append(files.Scratch(tmp_path / "mine"))
        original(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    files.sweep_scratch(tmp_path)
    assert (names(tmp_path), len(living)) == (["mine"], 1)
    living[0].close()


# Reading and the rest


def test_read_regular_reads_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert files.read_regular(tmp_path / "f", 5) == b"12345"
    with pytest.raises(SpoolUnusable, match="larger than 4 bytes"):
        files.read_regular(tmp_path / "f", 4)


def test_read_regular_reads_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "link").symlink_to("f")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError) as raised:
        files.read_regular(tmp_path / "link", 100)
    assert raised.value.errno == errno.ELOOP
    for path in (tmp_path / "fifo", tmp_path):  # the FIFO has no writer: a plain open would wait for one
        with pytest.raises(SpoolUnusable, match="not a regular file"):
            files.read_regular(path, 100)
    with pytest.raises(FileNotFoundError):
        files.read_regular(tmp_path / "gone", 100)


def test_move_replaces_no_folder_with_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        files.make_dir(tmp_path / name)
        files.write_new(tmp_path / name / name, b"", durable=False)
    with pytest.raises(SpoolUnusable, match="not empty"):
        files.move(tmp_path / "a", tmp_path / "b")
    assert (names(tmp_path / "a"), names(tmp_path / "b")) == (["a"], ["b"])


def test_remove_is_content_when_nothing_is_there(tmp_path: Path) -> None:
    files.write_new(tmp_path / "f", b"", durable=False)
    for _ in range(2):
        files.remove(tmp_path / "f")
    assert names(tmp_path) == []
    with pytest.raises(SpoolUnusable, match="cannot remove"):
        files.remove(tmp_path)


def test_names_leaves_hidden_ones_out_and_needs_no_folder(tmp_path: Path) -> None:
    for name in ("a", ".b"):
        files.write_new(tmp_path / name, b"", durable=False)
    assert files.list_names(tmp_path) == ["a"]
    assert files.list_names(tmp_path / "gone") == []


def test_append_and_rotate(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for line in (b"1\n", b"2\n"):
        files.append(path, line)
        files.rotate(path, 4)
    assert path.read_bytes() == b"1\n2\n"
    files.rotate(path, 3)
    assert names(tmp_path) == ["log.1"]
    files.append(path, b"3\n")
    assert path.read_bytes() == b"3\n"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE])
def test_every_error_says_what_where_and_what_to_do(number: int) -> None:
    with pytest.raises(SpoolUnusable) as raised, files.naming(Path("/spool/x")):
        raise OSError(number, "whatever")
    assert raised.value.message == f"cannot write /spool/x: {os.strerror(number)}"
    assert raised.value.hint
    assert isinstance(raised.value.__cause__, OSError)


def test_every_kind_of_file_has_a_level() -> None:
    durable = {kind for kind, level in files.DURABLE.items() if level}
    assert {"submission", "plan", "outcome", "request", "workflow ended", "task starting, not idempotent"} <= durable
    assert "view" not in durable
