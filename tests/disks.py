"""Small file systems for tests of full ones."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def tmpfs(path: Path, options: str) -> Iterator[Path]:
    """A tmpfs with these mount options at a new folder; it goes whatever happens."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@contextlib.contextmanager
def in_memory(path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one, which others may pass through; else the path itself, which is made.

    For what is measured of a program, and not of the disk of a busy machine.
    """
    folder = Path("/dev/shm", f"provisioning-test-{os.getpid()}-{path.name}"[:200])
    if not folder.parent.is_dir():
        path.mkdir(exist_ok=True)
        yield path
        return
    folder.mkdir(mode=0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fill(path: Path) -> Path:
    """Take all bytes of the file system that the path is on; the file that has them."""
    filler = path / "filler"
    with open(filler, "ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass
    return filler


def fill_inodes(path: Path) -> list[Path]:
    """Take all inodes of the file system that the path is on; the files that have them."""
    taken: list[Path] = []
    with contextlib.suppress(OSError):
        while True:
            (path / f"inode-{len(taken)}").touch()
            taken.append(path / f"inode-{len(taken)}")
    return taken
