"""Folders of others, as an orchestrator that is not root sees them: by the group, and nothing in them its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioning.storage import foreign, room
from tests.others import as_user

pytestmark = pytest.mark.root

ALICE, ORCHESTRATOR = 61001, 61003


def as_orchestrator(act: Callable[[], bool]) -> bool:
    """What the call says in a process of the orchestrator's user."""
    room._renameat2()  # so that nothing has to be imported there
    return as_user(ORCHESTRATOR, ORCHESTRATOR, act)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Alice's, as `spool init` makes it; and beside it one of the orchestrator's own."""
    for path in (tmp_path, *tmp_path.parents[:-1]):
        path.chmod(path.stat().st_mode | 0o011)
    made = tmp_path / "alice"
    made.mkdir()
    os.chown(made, ALICE, ORCHESTRATOR)
    made.chmod(0o2770)
    (tmp_path / "taking").mkdir(mode=0o700)
    os.chown(tmp_path / "taking", ORCHESTRATOR, ORCHESTRATOR)
    return made


def test_who_may_take_files_away(folder: Path) -> None:
    assert as_orchestrator(lambda: foreign.is_writable(folder))
    folder.chmod(0o3770)  # sticky: only a file's owner, or the folder's, may then
    assert not as_orchestrator(lambda: foreign.is_writable(folder))
    assert foreign.is_writable(folder)  # root may
    folder.chmod(0o2750)
    assert not as_orchestrator(lambda: foreign.is_writable(folder))


@pytest.mark.parametrize("kind", ["file", "folder", "fifo"])
def test_what_was_moved_away_by_mistake_is_put_back(folder: Path, kind: str) -> None:
    """Where the kernel protects hard links, nobody may link another's file: it is renamed, and replaces nothing."""
    path, into = folder / "m.toml", folder.parent / "taking" / "original"
    path.write_bytes(b"old")
    sight = foreign.look(folder, b"m.toml")
    assert sight
    path.unlink()

    def arrive(where: Path) -> None:
        if kind == "file":
            where.write_bytes(b"new")
        else:
            (os.mkdir if kind == "folder" else os.mkfifo)(where)
        os.chown(where, ALICE, ORCHESTRATOR)
        where.chmod(0o770 if kind == "folder" else 0o640)

    def settle() -> bool:
        return foreign.settle_away(os.fsencode(path), sight, into, lambda _: False, wanted=False)

    arrive(into)
    assert not as_orchestrator(settle)
    assert (path.exists(), into.exists()) == (True, False)
    arrive(into)  # and now its name is taken: the newer one counts
    before = path.stat().st_ino
    assert not as_orchestrator(settle)
    assert (path.stat().st_ino, into.exists()) == (before, False)
    assert len(os.listdir(folder)) == (2 if kind == "folder" else 1)  # what is in a folder is not ours to remove
