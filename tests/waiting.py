"""Waiting for a predicate: the only way in which a test lets time pass."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.01


def wait_for(predicate: Callable[[], T], seconds: float = 20.0, what: str = "") -> T:
    """The first true value of the predicate; the test fails when there is none within the time."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what or predicate}"
        pause.wait(LOOK_SECONDS)
    return value
