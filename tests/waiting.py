"""Waiting for a predicate: the only way in which a test lets time pass."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.01


def wait_for(predicate: Callable[[], T], seconds: float = 20.0, what: str | Callable[[], str] = "") -> T:
    """The first true value of the predicate; the test fails when there is none within the time.

    `what` says what was waited for; a function is asked once that is known.
    """
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {_said(what) or predicate}"
        pause.wait(LOOK_SECONDS)
    return value


def _said(what: str | Callable[[], str]) -> str:
    return what if isinstance(what, str) else what()
