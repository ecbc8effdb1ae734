"""Restore of a spool: which files are refused, and what is there afterwards."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import msgspec
import pytest

from provisioning.errors import ProvisioningError, Refused, SpoolUnusable
from provisioning.processes import own_identity
from provisioning.storage import files
from provisioning.storage.backup import back_up
from provisioning.storage.packed import HEADER_BYTES
from provisioning.storage.restore import NoBackup, restore
from provisioning.storage.spool import Spool
from tests.unit.backups import ONE, TWO, content, packed, unpacked


@pytest.fixture
def spool(under_way: Spool) -> Spool:
    return under_way


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, data in members:
            info.size = info.size or len(data)
            tar.addfile(info, io.BytesIO(data) if data else None)
    return out.getvalue()


def member(name: str, data: bytes = b"", **more: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


FIRST = member("format", b"1\n")
HOSTILE = {
    "nothing": b"",
    "no tar": b"x" * 20_000,
    "no spool": tar_of(member("etc/passwd", b"x")),
    "a newer format": tar_of(member("format", b"2\n")),
    "an absolute name": tar_of(FIRST, member("/etc/cron.d/x", b"x")),
    "a name upwards": tar_of(FIRST, member("workflows/../../x", b"x")),
    "upwards in a tree": tar_of(FIRST, member("nulib/d/tree/../../../../x", b"x")),
    "upwards in rejected": tar_of(FIRST, member("rejected/../x", b"x")),
    "a foreign name": tar_of(FIRST, member("drop/x", b"x")),
    "an orchestrator's record": tar_of(FIRST, member("orchestrator.json", b"{}")),
    "a scratch folder": tar_of(FIRST, member(f"tmp/{ONE}/process", b"{}")),
    "a link": tar_of(FIRST, member("rejected/x", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "a hard link": tar_of(FIRST, member("rejected/x", type=tarfile.LNKTYPE, linkname="/etc/passwd")),
    "a device": tar_of(FIRST, member("rejected/x", type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    "a FIFO": tar_of(FIRST, member("rejected/x", type=tarfile.FIFOTYPE)),
    "a folder": tar_of(FIRST, member("rejected/x", type=tarfile.DIRTYPE)),
    "a sparse file": tar_of(FIRST, member("rejected/x", type=tarfile.GNUTYPE_SPARSE)),
    "a name twice": tar_of(FIRST, member("rejected/x", b"1"), member("rejected/x", b"2")),
    "a file as a folder": tar_of(FIRST, member("rejected/x", b"1"), member("rejected/x/y", b"2")),
    "a long name": tar_of(FIRST, member("rejected/" + "x" * 300, b"1")),
    "a NUL in a name": tar_of(FIRST, member("format", b"1\n", pax_headers={"path": "rejected/a\0b"})),
    "a huge record": tar_of(FIRST, member(f"requests/{ONE}.{TWO}.json", size=5 << 20)),
    "a huge file": tar_of(FIRST, member("rejected/x", size=1 << 39)),
    "a size below zero": tar_of(FIRST, member("rejected/x", b"1", pax_headers={"size": "-5"})),
    "no end": tar_of(FIRST, member("rejected/x", b"1")),
    "a foreign end": tar_of(FIRST, member("backup.json", b"[]")),
    "something after its end": tar_of(FIRST, member("backup.json", b"{}"), member("rejected/x", b"1")),
    "a wrong packing": b"\x1f\x8b" + b"x" * 100,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_backup_is_refused_and_leaves_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "site").mkdir()
    with pytest.raises(SpoolUnusable) as caught:
        restore(io.BytesIO(data), "b.tar", tmp_path / "site" / "copy")
    assert "b.tar" in str(caught.value) or "copy" in str(caught.value)
    assert os.listdir(tmp_path / "site") == []


def test_a_huge_header_does_not_fill_the_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 32
    data = tar_of(FIRST)[:1024] + header.tobuf(tarfile.USTAR_FORMAT)
    given = 0

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            nonlocal given
            out = (data + bytes(size))[given : given + size] or bytes(size)
            given += len(out)
            return out

    with pytest.raises(NoBackup, match="header"):
        restore(Endless(), "b.tar", tmp_path / "copy")  # type: ignore[arg-type]
    assert given < 2 * HEADER_BYTES


def test_a_bomb_is_refused_by_what_it_says_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = gzip.compress(tar_of(FIRST, member("rejected/x", size=1 << 39)))
    with pytest.raises(NoBackup, match="does not fit"):
        restore(io.BytesIO(bomb), "b.tgz", tmp_path / "copy")


@pytest.mark.parametrize("compress", [False, True])
def test_a_backup_that_is_cut_off_anywhere_is_refused(spool: Spool, tmp_path: Path, compress: bool) -> None:
    out = io.BytesIO()
    back_up(spool, out, compress=compress)
    data = out.getvalue()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        last = tar.getmember("backup.json")
        bounds = {info.offset for info in tar} | {info.offset_data for info in tar}
    whole = len(data) if compress else last.offset_data + last.size
    cuts = range(0, len(data), 97) if compress else sorted({*range(0, whole, 1021), *bounds, whole - 1})
    cuts = [cut for cut in cuts if not compress or cut < len(data) - 64]  # there it has no content, but its own sum
    for cut in cuts:
        with pytest.raises(SpoolUnusable):
            restore(io.BytesIO(data[:cut]), "b.tar", tmp_path / "copy")
    assert os.listdir(tmp_path) == ["spool"]


def test_a_changed_byte_is_found(spool: Spool, tmp_path: Path) -> None:
    data = packed(spool)
    changed = data.replace(b"said", b"sad!")
    assert changed != data
    with pytest.raises(NoBackup, match="digest"):
        restore(io.BytesIO(changed), "b.tar", tmp_path / "copy")


@pytest.mark.parametrize("there", ["file", "full", "spool", "link"])
def test_what_is_there_is_refused(spool: Spool, tmp_path: Path, there: str) -> None:
    target = tmp_path / "copy"
    if there == "file":
        target.write_bytes(b"x")
    elif there == "link":
        target.symlink_to(spool.root)
    else:
        target.mkdir()
        (target / ("format" if there == "spool" else "x")).write_bytes(b"1\n")
    before = content(tmp_path)
    with pytest.raises(Refused):
        restore(io.BytesIO(packed(spool)), "b.tar", target)
    assert content(tmp_path) == before


def test_folders_that_were_made_for_it_are_durable(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = packed(spool)
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_dir", synced.append)
    restore(io.BytesIO(data), "b.tar", tmp_path / "one" / "two" / "copy")
    assert {tmp_path, tmp_path / "one", tmp_path / "one" / "two"} <= set(synced)


def test_an_empty_folder_becomes_the_spool(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    assert unpacked(packed(spool), tmp_path / "copy").claimed_ids() == [ONE]


def test_a_full_disk_leaves_nothing(spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed(spool)
    (tmp_path / "site").mkdir()

    def full(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync_dir", full)
    with pytest.raises((OSError, ProvisioningError)):
        restore(io.BytesIO(data), "b.tar", tmp_path / "site" / "copy")
    assert os.listdir(tmp_path / "site") == []


def test_nobody_holds_a_workflow_of_the_copy(spool: Spool, tmp_path: Path) -> None:
    folder = spool.workflow(ONE)
    checkpoint = folder.workflow()
    assert checkpoint is not None
    folder.save_workflow(msgspec.structs.replace(checkpoint, holder=own_identity()))
    copy = unpacked(packed(spool), tmp_path / "copy")
    assert copy.workflow(ONE).workflow() == checkpoint
