"""Room on the disk of a spool: what is free, and the marks below which nothing is accepted or started.

Between a mark and a full disk is what running tasks, requests and the clean-up need to come to their ends.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from provisioning.config import Disk
from provisioning.errors import SpoolUnusable
from provisioning.storage.naming import naming


class DiskLow(SpoolUnusable):
    """Less is free on the disk of the spool than the config wants."""

    code = "disk-low"

    def __init__(self, root: Path, free: str, mark: str, key: str) -> None:
        super().__init__(
            f"the disk of {root} has {free} free, less than the {mark} of {key}",
            hint=f"free some there, as with: provisioning workflow cleanup; or lower {key} in the config, "
            "and start the orchestrator anew",
        )


class Free(NamedTuple):
    """What is free on a file system for who is not root."""

    bytes: int
    inodes: int


def free(root: Path) -> Free:
    """What is free where the spool is."""
    with naming(root, "look at the disk of"):
        found = os.statvfs(root)
    return Free(found.f_bavail * found.f_frsize, found.f_favail)


def shortage(root: Path, marks: Disk) -> DiskLow | None:
    """What the file system of the spool has too little of; None where it is above both marks."""
    with naming(root, "look at the disk of"):
        found = os.statvfs(root)
    free_bytes = found.f_bavail * found.f_frsize
    if free_bytes < marks.free_bytes:
        return DiskLow(root, size_text(free_bytes), size_text(marks.free_bytes), "disk.free_bytes")
    # btrfs and others count no inodes: they say that there are none at all.
    if found.f_files and found.f_favail < marks.free_inodes:
        return DiskLow(root, f"{found.f_favail} inodes", f"{marks.free_inodes}", "disk.free_inodes")
    return None


def refuse_below(root: Path, marks: Disk) -> None:
    """Raise what the spool's file system has too little of."""
    if (found := shortage(root, marks)) is not None:
        raise found


def size_text(size_bytes: int) -> str:
    """A number of bytes in the largest unit of which there is one."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size_bytes >= 1 << shift:
            return f"{size_bytes / (1 << shift):.1f}".removesuffix(".0") + f" {unit}"
    return f"{size_bytes} bytes"
