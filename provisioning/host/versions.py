"""The versions of the program that are laid down side by side: which are there, which run, which may go."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from provisioning import __version__
from provisioning.errors import Refused

SUMS = "SHA256SUMS"


def own_folder() -> Path:
    """The folder that this program runs from. Refused where it is not that of the one file."""
    folder = Path(sys.executable).parent.parent
    if not (folder / SUMS).is_file() or not (folder / "libexec" / "provisioning").is_file():
        text = f"this program runs from {folder}, which is not the folder of the one file"
        hint = "install with the one file, provisioning-<version>-linux-x86_64, or from its unpacked archive"
        raise Refused(text, hint=hint)
    return folder


def name_of(folder: Path) -> str:
    """What a version's folder is called: by its version, and by the digest of all that is in it."""
    return f"{__version__}-{hashlib.sha256((folder / SUMS).read_bytes()).hexdigest()[:12]}"


def differing(folder: Path) -> Iterator[str]:
    """The files that are not as they were built: gone, or of another digest."""
    for line in (folder / SUMS).read_text("utf-8").splitlines():
        digest, _, name = line.partition("  ")
        try:
            with open(folder / name, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            found = ""
        if found != digest:
            yield name


def runs(folder: Path) -> bool:
    """Whether a process that can be seen executes a file of the folder."""
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and Path(os.readlink(f"/proc/{name}/exe")).is_relative_to(folder):
                return True
    return False


@contextlib.contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Whether nothing runs from the folder; nothing can begin to in the block: each start asks for a shared lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield not runs(folder)
    finally:
        os.close(descriptor)
