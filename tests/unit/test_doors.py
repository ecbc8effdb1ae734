"""Drop folders as `spool init` makes them, and what `spool check` finds wrong with them afterwards."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioning.errors import NotFound, Problem, UsageError
from provisioning.storage.doors import add_operators, check_doors
from tests.disks import tmpfs
from tests.others import as_user

pytestmark = pytest.mark.root

OWNER, OPERATOR = "daemon", "games"
"""Users whom every Debian has."""


def checked(root: Path) -> list[Problem]:
    """What is wrong, as who works the spool finds it."""
    owner = pwd.getpwnam(OWNER)
    return as_user(owner.pw_uid, owner.pw_gid, lambda: check_doors(root))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folders of a spool that is worked by somebody who is not root."""
    for path in (tmp_path, *tmp_path.parents[:-1]):
        path.chmod(path.stat().st_mode | 0o011)
    made = tmp_path / "spool"
    for path in (made, made / "drop"):
        path.mkdir(mode=0o700)
        os.chown(path, pwd.getpwnam(OWNER).pw_uid, pwd.getpwnam(OWNER).pw_gid)
    add_operators(made, [OPERATOR], None)
    return made


def test_folders_that_were_just_made_are_well(root: Path) -> None:
    assert checked(root) == []
    found = (root / "drop" / OPERATOR).stat()
    assert (found.st_uid, found.st_gid) == (pwd.getpwnam(OPERATOR).pw_uid, pwd.getpwnam(OWNER).pw_gid)
    assert found.st_mode & 0o7777 == 0o2770
    assert root.stat().st_mode & 0o777 == 0o711
    with pytest.raises(UsageError):
        add_operators(root, ["../etc"], None)
    with pytest.raises(NotFound):
        add_operators(root, [OPERATOR], "no-such-group")


@pytest.mark.parametrize(
    ("code", "spoil"),
    [
        ("not-removable", lambda folder: folder.chmod(0o3770)),
        ("not-removable", lambda folder: folder.chmod(0o2750)),
        ("open-to-others", lambda folder: folder.chmod(0o2775)),
        ("open-to-others", lambda folder: os.chown(folder, -1, pwd.getpwnam("nobody").pw_gid)),
        ("foreign-owner", lambda folder: os.chown(folder, 0, -1)),
        ("no-operator", lambda folder: folder.rename(folder.with_name("nobody-is-called-so"))),
        ("foreign-file", lambda folder: (folder.parent / "x.toml").touch()),
        ("unsafe-parent", lambda folder: folder.parents[2].chmod(0o777)),
    ],
)
def test_what_is_wrong_with_them_is_found_and_can_be_mended(
    root: Path, code: str, spoil: Callable[[Path], object]
) -> None:
    folder = root / "drop" / OPERATOR
    spoil(folder)
    problems = checked(root)
    assert [problem.code for problem in problems] == [code]
    assert problems[0].hint
    if "spool init" in problems[0].hint:
        os.chown(folder, pwd.getpwnam(OPERATOR).pw_uid, -1)
        add_operators(root, [OPERATOR], None)
        assert checked(root) == []


def test_a_folder_on_another_file_system(root: Path) -> None:
    """A file of it could not be renamed into the spool."""
    add_operators(root, ["backup"], None)
    (root / "drop" / "backup").rename(root.parent / "mode")
    made = (root.parent / "mode").stat()
    with tmpfs(root / "drop" / "backup", f"size=1m,mode={made.st_mode & 0o7777:o},uid={made.st_uid},gid={made.st_gid}"):
        assert [(problem.code, Path(problem.file).name) for problem in checked(root)] == [("elsewhere", "backup")]
