"""Backups that somebody else made: what they name is never taken for a path outside the spool."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import msgspec
import pytest

from provisioning.clock import now
from provisioning.storage.members import Contents, measure
from provisioning.storage.restore import NoBackup, restore
from provisioning.storage.spool import Spool

ULID = "01kc0000000000000000000001"


def backup(members: dict[str, bytes], gone: tuple[str, ...] = (), last: bytes | None = None) -> io.BytesIO:
    """A backup as whole as any: `last`, where it is given, is what it says of itself."""
    members = {"format": b"1\n", **members}
    digest = hashlib.sha256()
    for name, data in members.items():
        measure(digest, name, len(data))
        digest.update(data)
    said = Contents(1, now(), len(members), digest.hexdigest(), gone)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in {**members, "backup.json": last or msgspec.json.encode(said)}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


@pytest.mark.parametrize("named", ["{outside}", "../../../outside", "..", "", ULID + "\n"])
def test_what_a_backup_says_is_gone_is_never_looked_for_outside_it(tmp_path: Path, named: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"")
    with pytest.raises(NoBackup, match=r"backup\.json"):
        restore(backup({}, (named.format(outside=outside),)), "b.tar", tmp_path / "site" / "copy")
    assert (outside / "kept").exists()
    assert list((tmp_path / "site").iterdir()) == []


def test_the_record_that_ends_a_backup_is_refused_where_it_would_fill_the_memory(tmp_path: Path) -> None:
    with pytest.raises(NoBackup, match="the format allows"):
        restore(backup({}, last=b" " * (4 << 20) + b"{}"), "b.tar", tmp_path / "copy")


@pytest.mark.parametrize("name", ["../nulib", "{root}", "", ".", "..", ULID + "\n", "nightly"])
def test_what_is_no_workflow_id_has_no_folder(tmp_path: Path, name: str) -> None:
    spool = Spool.create(tmp_path / "spool")
    (spool.workflows / "nightly").mkdir()
    assert spool.folder_path(name.format(root=spool.root)) is None
