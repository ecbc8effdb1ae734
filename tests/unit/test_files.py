"""How files come to be: whole or not at all, whatever call fails, and scratch folders that outlive nobody."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioning.errors import SpoolUnusable
from provisioning.storage import files, growing, reading
from provisioning.storage.naming import WrongKind, naming
from tests.simulation.faults import PowerCut, failing, names

ROOT = Path(__file__).parents[2]


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


# Trees


def test_publish_tree_appears_whole(tmp_path: Path, scratch: files.Scratch) -> None:
    files.publish_tree({"a/b/c.nu": b"1", "d.nu": b"2"}, tmp_path / "tree", scratch)
    assert (tmp_path / "tree/a/b/c.nu").read_bytes() == b"1"
    assert (names(tmp_path), names(scratch.path)) == (["tmp", "tree"], [])
    files.publish_tree({"other": b"3"}, tmp_path / "tree", scratch)
    assert names(tmp_path / "tree") == ["a", "d.nu"]


@pytest.mark.parametrize(("call", "number"), [("open", 1), ("write", 2), ("fsync", 1), ("fsync", 3), ("rename", 1)])
def test_publish_tree_fails_whole(
    tmp_path: Path, scratch: files.Scratch, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    with monkeypatch.context() as patched:
        failing(call, OSError(errno.EIO, "broken"), patched, number=number)
        with pytest.raises(SpoolUnusable):
            files.publish_tree({"a/b.nu": b"1", "c.nu": b"2"}, tmp_path / "tree", scratch)
    assert (names(tmp_path), names(scratch.path)) == (["tmp"], [])


def test_publish_tree_says_when_the_folder_could_not_be_synced(
    tmp_path: Path, scratch: files.Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing("fsync", OSError(errno.EIO, "broken"), monkeypatch, number=4)  # two files, the tree, then its parent
    with pytest.raises(SpoolUnusable):
        files.publish_tree({"a.nu": b"1", "b.nu": b"2"}, tmp_path / "tree", scratch)


def test_publish_tree_is_content_when_another_was_first(
    tmp_path: Path, scratch: files.Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def late(source: Any, target: Any) -> None:
        monkeypatch.setattr(os, "rename", rename)
        files.publish_tree({"first": b"1"}, tmp_path / "tree", scratch)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    files.publish_tree({"second": b"2"}, tmp_path / "tree", scratch)
    assert (names(tmp_path), names(tmp_path / "tree")) == (["tmp", "tree"], ["first"])


# Reading and the rest


def test_read_regular_reads_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert reading.read_regular(tmp_path / "f", 5) == b"12345"
    with pytest.raises(SpoolUnusable, match="larger than 4 bytes"):
        reading.read_regular(tmp_path / "f", 4)


def test_read_regular_reads_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "link").symlink_to("f")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(WrongKind, match="Too many levels"):
        reading.read_regular(tmp_path / "link", 100)
    for path in (tmp_path / "fifo", tmp_path):  # the FIFO has no writer: a plain open would wait for one
        with pytest.raises(WrongKind, match="not a regular file"):
            reading.read_regular(path, 100)
    with pytest.raises(FileNotFoundError):
        reading.read_regular(tmp_path / "gone", 100)


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
    assert reading.list_names(tmp_path) == ["a"]
    assert reading.list_names(tmp_path / "gone") == []


def test_append_and_rotate(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for line in (b"1\n", b"2\n"):
        files.append(path, line)
        growing.rotate(path, 4)
    assert path.read_bytes() == b"1\n2\n"
    growing.rotate(path, 3)
    assert names(tmp_path) == ["log.1"]
    files.append(path, b"3\n")
    assert path.read_bytes() == b"3\n"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE])
def test_every_error_says_what_where_and_what_to_do(number: int) -> None:
    with pytest.raises(SpoolUnusable) as raised, naming(Path("/spool/x")):
        raise OSError(number, "whatever")
    assert raised.value.message == f"cannot write /spool/x: {os.strerror(number)}"
    assert raised.value.hint
    assert isinstance(raised.value.__cause__, OSError)


def test_every_kind_of_file_has_a_level() -> None:
    durable = {kind for kind, level in files.DURABLE.items() if level}
    assert {"submission", "plan", "request", "workflow ended", "task starting, not idempotent"} <= durable
    assert "view" not in durable
    sources = "".join(
        path.read_text() for path in (ROOT / "provisioning").rglob("*.py") if path.name != Path(files.__file__).name
    )
    assert [kind for kind in files.DURABLE if f'"{kind}"' not in sources] == []


def test_nobody_waits_at_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="No such device"):
        files.append(tmp_path / "fifo", b"x")
    with pytest.raises(WrongKind):
        files.open_log(tmp_path / "fifo")


def test_list_names_of_folders_only(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("folder")
    assert reading.list_names(tmp_path, folders=True) == ["folder"]
    with pytest.raises(WrongKind):
        reading.list_names(tmp_path / "file")


def test_a_file_of_the_present_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files.write_atomic(Path("x"), b"1", durable=True)
    assert (os.listdir(), Path("x").read_bytes()) == (["x"], b"1")
