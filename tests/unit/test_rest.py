"""When nothing is started: it is told once when it begins and once when it ends, and it ends by itself."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest

from provisioning.errors import SpoolUnusable
from provisioning.orchestrator.rest import REST_SECONDS, Rest
from provisioning.storage.disk import DiskLow
from provisioning.storage.spool import Spool


class Disk:
    """Stands for a spool whose disk is low or not, and counts who asks."""

    def __init__(self) -> None:
        self.low: SpoolUnusable | None = None
        self.asked = 0

    def shortage(self) -> SpoolUnusable | None:
        self.asked += 1
        return self.low


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(Spool, "shortage", lambda _self: made.shortage())
    return made


@pytest.fixture
def rest(disk: Disk, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Rest:
    caplog.set_level(logging.INFO)
    return Rest(Spool(tmp_path))


def tick(rest: Rest, boottime: float, error: Exception | None = None) -> bool:
    """One tick, in which the host refuses something or not; whether it would have started what is ready."""
    rest.look(boottime)
    lasted = rest.lasts(boottime)
    if error is not None:
        rest.begin(error, boottime)
    rest.end(boottime)
    return not lasted


def low() -> DiskLow:
    return DiskLow(Path("/spool"), "1 MiB", "64 MiB", "disk.free_bytes")


def full(path: str) -> SpoolUnusable:
    error = SpoolUnusable(f"cannot write {path}: No space left on device")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


def test_a_low_disk_is_looked_at_once_a_second_and_told_once(
    rest: Rest, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    assert tick(rest, 0.0)
    disk.low, disk.asked = low(), 0
    assert not any(tick(rest, 1 + number / 100) for number in range(500))
    assert disk.asked <= 6
    disk.low = None
    assert rest.next_look() is not None
    assert tick(rest, 7.0 + REST_SECONDS)
    assert [record.message.partition(" ")[0] for record in caplog.records] == ["the", "claims"]
    assert "after 7 s" in caplog.records[1].message
    assert rest.next_look() is None


def test_refusals_of_one_kind_are_told_once_until_they_are_over(rest: Rest, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(10):
        tick(rest, float(2 * number), full(f"/spool/tmp/{number}"))
    assert rest.refused()
    tick(rest, 30.0)
    assert not rest.refused()
    tick(rest, 40.0, full("/spool/tmp/10"))
    assert ["No space left" in record.message for record in caplog.records] == [True, False, True]


def test_another_reason_is_told_too(rest: Rest, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    disk.low = low()
    tick(rest, 0.0)
    tick(rest, 0.5, full("/spool/x"))
    tick(rest, 2.0)
    assert not rest.refused(), "it is the mark again"
    assert len(caplog.records) == 2
    assert rest.seconds(5.0) == 5.0
