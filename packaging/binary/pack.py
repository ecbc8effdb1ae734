"""Packs the folder: into the one file, behind the launcher, and into an archive. The same bytes for the same folder."""

from __future__ import annotations

import hashlib
import io
import struct
import subprocess
import tarfile
from pathlib import Path

MAGIC = b"PROVFILE"
LEVEL = "-12"
"""Of zstd: a tenth larger than the best, in a twentieth of its time; unpacked as fast."""


def archive(folder: Path, root: str, moment: int) -> bytes:
    """A POSIX ustar archive of the folder, by name, of nobody in particular. `moment` is Unix time."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            entry = tar.gettarinfo(path, f"{root}/{name}" if root else name)
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = moment
            if entry.islnk():  # two names of one file here are two files
                entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", path.stat().st_size
            entry.mode = 0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    tar.addfile(entry, file)
            else:
                tar.addfile(entry)
    return out.getvalue()


def one_file(launcher: Path, folder: Path, version: str, moment: int, target: Path) -> None:
    """Write the program that unpacks the folder; launcher.c has the layout of its last bytes."""
    packed = _through(["zstd", "-q", "-c", LEVEL, "-T2", "--check"], archive(folder, "", moment))
    name = f"{version}-{hashlib.sha256(packed).hexdigest()[:32]}"
    trailer = struct.pack("<80sQ8s", name.encode(), len(packed), MAGIC)
    target.write_bytes(launcher.read_bytes() + packed + trailer)
    target.chmod(0o755)


def tarball(folder: Path, root: str, moment: int, target: Path) -> None:
    """Write the folder as an archive whose only entry at the top is `root`."""
    target.write_bytes(_through(["xz", "-6", "-T2", "--block-size=24MiB", "-c"], archive(folder, root, moment)))


def _through(command: list[str], data: bytes) -> bytes:
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout
