"""Which file system holds a folder. Locks and identities of processes hold on one host: others must not share it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from provisioning.errors import SpoolUnusable
from provisioning.storage.naming import naming

_SHARED = """
9p acfs afs beegfs ceph ceph-fuse cifs coda davfs gcsfuse gfs2 glusterfs gpfs juicefs lustre mfs ncpfs nfs nfs4 ocfs2
orangefs pvfs2 rclone s3fs smb3 smbfs sshfs
"""
NETWORK = frozenset(_SHARED.split())
"""File systems that several hosts can mount at once, by their names, or those behind `fuse.`."""

_CLUSTERS = ("/sys/fs/gfs2", "/sys/fs/ocfs2")
"""There once the kernel has a file system that several hosts share on one block device."""


class Mount(NamedTuple):
    """A mounted file system."""

    point: str
    kind: str

    @property
    def is_network(self) -> bool:
        """Whether other hosts may have it mounted too."""
        return self.kind.removeprefix("fuse.") in NETWORK


def read_mount(mountinfo: str, mount_id: int) -> Mount | None:
    """The mount of that id in a text as /proc/self/mountinfo has it, see proc_pid_mountinfo(5)."""
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if fields[0] == str(mount_id) and "-" in fields:
            kind = fields[fields.index("-", 6) + 1]
            return Mount(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4]), kind)
    return None


def mount_of(folder: Path) -> Mount | None:
    """The mount that holds the folder; None where /proc does not say, or where it is a block device of this host.

    Asked of the kernel by the mount's id, so that no link, bind or name of a mount can mislead.
    """
    with naming(folder, "look at"):
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if os.major(os.fstat(descriptor).st_dev) and not any(map(os.path.exists, _CLUSTERS)):
                return None  # on the path of every command: what cannot be a network's costs two looks
            facts = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
            found = re.search(r"^mnt_id:\s*(\d+)$", facts, re.MULTILINE)
            text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        finally:
            os.close(descriptor)
    return read_mount(text, int(found[1])) if found else None


def refuse_network(folder: Path, *, allowed: bool) -> None:
    """SpoolUnusable where other hosts could work the folder too, unless the operator has said that none does."""
    if allowed:
        return
    while not os.path.isdir(folder) and folder != folder.parent:
        folder = folder.parent  # it is about to be made
    mount = mount_of(folder)
    if mount is not None and mount.is_network:
        raise SpoolUnusable(
            f"{folder} is on a network file system ({mount.kind} at {mount.point}): its locks do not bind other hosts",
            hint="put the spool on a disk of this host; or, if no other host ever works it, set: [disk] network = true",
        )
