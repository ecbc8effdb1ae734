"""Tells the supervisor that started this process, such as systemd, how it is doing: sd_notify(3) over a datagram."""

from __future__ import annotations

import contextlib
import math
import socket

from provisioning.clock import boottime
from provisioning.config import Supervisor

TELL_SECONDS = 1.0
"""Between two messages about what it does."""


class Notifier:
    """Says so once when the work begins and when it ends, and in time for the watchdog that it goes on.

    Nobody listening is no error: the work matters, not who hears of it.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        # A name that begins with @ is in the abstract namespace.
        self._address = "\0" + supervisor.socket[1:] if supervisor.socket.startswith("@") else supervisor.socket
        self._alive_seconds = supervisor.watchdog_seconds / 2 if supervisor.socket else 0.0
        self._alive_at = 0.0
        self._told = ""
        self._tell_at = 0.0

    def ready(self, status: str) -> None:
        """It works: what depends on it may start."""
        self._told = status
        self._say(f"READY=1\nSTATUS={status}")

    def tell(self, status: str) -> None:
        """What it does now, where that is another thing than was told last; once in a while."""
        if self._address and status != self._told and boottime() >= self._tell_at:
            self._told, self._tell_at = status, boottime() + TELL_SECONDS
            self._say(f"STATUS={status}")

    def alive(self) -> None:
        """The loop still turns; to be called in each turn."""
        if self._alive_seconds and boottime() >= self._alive_at:
            self._alive_at = boottime() + self._alive_seconds
            self._say("WATCHDOG=1")

    def stopping(self, status: str) -> None:
        """It has been told to stop."""
        self._say(f"STOPPING=1\nSTATUS={status}")

    @property
    def at_most(self) -> float:
        """For so many seconds a turn of the loop may wait."""
        return self._alive_seconds / 2 or math.inf

    def _say(self, text: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaking:
            speaking.setblocking(False)
            speaking.sendto(text.encode(), self._address)
