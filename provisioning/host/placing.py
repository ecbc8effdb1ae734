"""Writes what an installation consists of: outside the spool, as root, each file complete or not there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from provisioning.clock import new_ulid
from provisioning.storage import files


def make_folder(path: Path, *, mode: int = 0o755, owner: tuple[int, int] | None = None) -> None:
    """Make the folder with this mode, and its parents, which all may read; of uid and gid `owner`."""
    if not path.parent.is_dir():
        make_folder(path.parent)
    path.mkdir(mode, exist_ok=True)
    path.chmod(mode)
    if owner is not None:
        os.chown(path, *owner, follow_symlinks=False)


def write(path: Path, data: bytes) -> None:
    """Write a file that all may read, durably."""
    if not path.parent.is_dir():
        make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{new_ulid()}")
    files.write_new(temporary, data, durable=True)
    temporary.chmod(0o644)
    temporary.replace(path)
    files.sync_dir(path.parent)


def link(path: Path, target: str) -> None:
    """Make the link, or lead the one that is there elsewhere, at once."""
    if not path.parent.is_dir():
        make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{new_ulid()}")
    temporary.symlink_to(target)
    temporary.replace(path)
    files.sync_dir(path.parent)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder, links as links, so that it is there whole and on the disk, or not at all."""
    make_folder(target.parent)
    temporary = target.with_name(f".{target.name}.{new_ulid()}")
    try:
        shutil.copytree(source, temporary, symlinks=True)
        temporary.chmod(0o755)
        os.sync()  # one flush for a thousand files
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    files.sync_dir(target.parent)


def remove(path: Path) -> None:
    """Remove a file or a link, and a folder that has become empty by it."""
    path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Remove a folder with all that is in it; under another name first, so that nobody starts half of it."""
    temporary = path.with_name(f".{path.name}.{new_ulid()}")
    path.rename(temporary)
    shutil.rmtree(temporary)
