"""The audit log: one chain, whoever writes it, over files and after a crash; and every change to it is seen."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from provisioning.config import Audit as Settings
from provisioning.errors import SpoolUnusable
from provisioning.storage.audit import Audit
from provisioning.storage.spool import Spool


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Spool.create(tmp_path / "spool").close()
    return tmp_path / "spool"


def test_records_make_a_chain(root: Path) -> None:
    log = Audit(root)
    heads = [log.append("accepted", operator=f"o{number}", tasks=[number], empty="") for number in range(5)]
    assert [head.n for head in heads] == [1, 2, 3, 4, 5]
    assert Audit(root).verify() == ([], heads[-1], 1)
    assert Audit(root).head() == heads[-1]
    assert [record["operator"] for record in log.records(newest=2)] == ["o3", "o4"]
    assert "empty" not in next(iter(log.records()))


def test_each_change_is_seen(root: Path) -> None:
    log = Audit(root)
    for number in range(4):
        log.append("accepted", operator=f"o{number}")
    path = root / "audit" / "audit.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    changed = [
        whole.replace(b"o1", b"o9"),
        lines[0] + lines[2] + lines[3],
        lines[1] + lines[0] + lines[2] + lines[3],
        lines[0] + lines[1] + lines[1] + lines[2] + lines[3],
        lines[0] + b"{}\n" + b"".join(lines[1:]),
        whole[:-10],
    ]
    for data in changed:
        path.write_bytes(data)
        assert Audit(root).verify()[0] != []
    path.write_bytes(b"".join(lines[:3]))  # a cut at a line's end is seen from outside only
    assert Audit(root).verify()[0] == []
    assert Audit(root).head().n == 3


def test_the_chain_goes_on_in_another_file(root: Path) -> None:
    log = Audit(root, Settings(bytes=600))
    for number in range(20):
        log.append("accepted", operator=f"o{number}")
    assert len(log.parts()) > 4
    breaks, head, first = Audit(root).verify()
    assert (breaks, head.n, first) == ([], 20, 1)
    log.parts()[1].unlink()
    assert len(Audit(root).verify()[0]) == 1


def test_writers_take_turns(root: Path) -> None:
    def write(name: str) -> None:
        log = Audit(root)
        for _ in range(20):
            log.append("accepted", operator=name)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    breaks, head, _ = Audit(root).verify()
    assert (breaks, head.n) == ([], 60)


def test_a_disk_that_refuses_adds_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Audit(root)
    log.append("accepted", operator="a")
    before = (root / "audit" / "audit.jsonl").read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as within:
        within.setattr(os, "fsync", refuse)
        with pytest.raises(SpoolUnusable):
            log.append("accepted", operator="b")
    assert (root / "audit" / "audit.jsonl").read_bytes() == before
    assert log.append("accepted", operator="c").n == 2
    assert Audit(root).verify()[0] == []


def test_nothing_is_added_behind_a_damaged_end(root: Path) -> None:
    Audit(root).append("accepted", operator="a")
    path = root / "audit" / "audit.jsonl"
    path.write_bytes(path.read_bytes() + b"{}\n")
    with pytest.raises(SpoolUnusable, match="damaged"):
        Audit(root).append("accepted", operator="b")


def test_the_head_is_told(root: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "log"))
        head = Audit(root, Settings(syslog=tmp_path / "log")).append("accepted", operator="a")
        assert told.recv(1000) == f"<85>provisioning: audit head n=1 hash={head.hash}".encode()
