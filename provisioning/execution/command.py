"""Starts programs other than an attempt's: absolute path, own session, no descriptors but the standard ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol


class Started(Protocol):
    """A process that was started."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""


def start_detached(arguments: Sequence[str], environment: Mapping[str, str]) -> Started:
    """Start this program again with other arguments, so that it outlives the caller and its terminal."""
    program = [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "provisioning"]
    return subprocess.Popen(
        [*program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        env=dict(environment),
    )
