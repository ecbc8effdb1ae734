"""The clocks and the names made from them; everything that decides takes these as arguments."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from provisioning.core.identifiers import ulid, ulid_milliseconds


def now() -> datetime:
    """The wall clock, in UTC: for instants that people read and write."""
    return datetime.now(UTC)


def boottime() -> float:
    """Seconds since the boot, suspended time included: for durations."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@cache
def boot_id() -> str:
    """The identity of this boot, which a boottime belongs to."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def new_ulid(after: str = "") -> str:
    """A fresh ULID in lower case: sorts by the time it was made, and behind `after` whatever the clock says."""
    milliseconds = time.time_ns() // 1_000_000
    if after:
        milliseconds = max(milliseconds, ulid_milliseconds(after) + 1)
    return ulid(milliseconds, os.urandom(10))
