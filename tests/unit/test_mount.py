"""A spool that other hosts could work too is refused, unless the operator says that none does."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioning.errors import SpoolUnusable
from provisioning.storage import mount
from provisioning.storage.check import check
from provisioning.storage.mount import Mount, mount_of, read_mount
from provisioning.storage.restore import restore
from provisioning.storage.spool import Spool
from tests.unit.backups import packed, spool_under_way

LOCAL = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
31 27 0:30 /@spool /var/spool rw - btrfs /dev/vdb rw,subvol=/@spool
32 27 0:31 / /dev/shm rw shared:4 master:2 - tmpfs tmpfs rw
33 27 0:40 / / rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
34 27 8:17 / /mnt/stick rw - fuseblk /dev/sdb1 rw
35 27 0:41 / /home/me/vault rw - fuse.gocryptfs /home/me/.vault rw
36 27 0:42 / /var/lib/lxcfs rw - fuse.lxcfs lxcfs rw
"""
SHARED = """\
40 27 0:50 / /net/a rw,relatime shared:9 - nfs4 10.0.0.1:/srv rw,vers=4.2
41 27 0:51 / /net/b rw - nfs 10.0.0.1:/srv rw,vers=3
42 27 0:52 /sub /net/c rw - cifs //nas/share rw
43 27 0:53 / /net/d rw - smb3 //nas/share rw
44 27 0:54 / /net/e rw - 9p host rw,trans=virtio
45 27 0:55 / /net/f rw master:1 propagate_from:2 - fuse.sshfs me@there:/srv rw
46 27 0:56 / /net/g rw - ceph 10.0.0.1:6789:/ rw
47 27 0:57 / /net/h rw - fuse.glusterfs there:/volume rw
48 27 0:58 / /net/i rw - lustre there@tcp:/fs rw
49 27 0:59 / /net/j rw - afs #there: rw
50 27 8:1 / /net/k rw - gfs2 /dev/sda1 rw
51 27 8:2 / /net/l rw - ocfs2 /dev/sda2 rw
"""


def ids(text: str) -> list[int]:
    return [int(line.split()[0]) for line in text.splitlines()]


@pytest.mark.parametrize("mount_id", ids(LOCAL))
def test_a_file_system_of_this_host(mount_id: int) -> None:
    found = read_mount(LOCAL + SHARED, mount_id)
    assert found is not None
    assert not found.is_network


@pytest.mark.parametrize("mount_id", ids(SHARED))
def test_a_file_system_that_hosts_share(mount_id: int) -> None:
    found = read_mount(LOCAL + SHARED, mount_id)
    assert found is not None
    assert found.is_network


def test_the_point_of_a_mount_is_written_as_it_is_named() -> None:
    text = r"7 1 0:9 / /srv/my\040spool\134\012x - rw - nfs4 there:/my\040srv rw"
    assert read_mount(text.replace(" - rw", " rw", 1), 7) == Mount("/srv/my spool\\\nx", "nfs4")


def test_a_mount_that_is_not_listed_is_unknown() -> None:
    assert read_mount(LOCAL, 99) is None
    assert read_mount("", 1) is None
    assert read_mount("7 cut off", 7) is None


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder on a mounted file system that has no block device."""
    if not os.path.ismount("/dev/shm") or os.major(os.stat("/dev/shm").st_dev):
        pytest.skip("/dev/shm is no tmpfs here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


def test_the_mount_of_a_folder_is_found_through_links(memory: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(memory)
    assert mount_of(tmp_path / "link") == mount_of(memory) == Mount("/dev/shm", "tmpfs")
    spool = Spool.create(memory / "spool")
    assert Spool.open(spool.root).root == spool.root


def test_it_is_refused_before_anything_is_made_in_it(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = memory / "deep" / "spool"
    monkeypatch.setattr(mount, "NETWORK", {"tmpfs"})
    with pytest.raises(SpoolUnusable, match=r"on a network file system \(tmpfs at /dev/shm\)") as refused:
        Spool.create(root)
    assert "[disk] network = true" in refused.value.hint
    assert list(memory.iterdir()) == []
    Spool.create(root, network=True)
    with pytest.raises(SpoolUnusable, match="network file system"):
        Spool.open(root)
    assert Spool.open(root, network=True).workflow_ids() == []


def test_no_backup_is_restored_there(memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = spool_under_way(tmp_path / "spool")
    data = packed(spool)
    spool.close()
    monkeypatch.setattr(mount, "NETWORK", {"tmpfs"})
    with pytest.raises(SpoolUnusable, match="network file system"):
        restore(io.BytesIO(data), "b.tar", memory / "deep" / "copy")
    assert list(memory.iterdir()) == []
    restore(io.BytesIO(data), "b.tar", memory / "deep" / "copy", network=True)
    assert check(memory / "deep" / "copy") == []
