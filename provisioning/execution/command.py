"""Starts programs other than an attempt's: absolute path, own session, no descriptors but the standard ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence


class Detached:
    """This program, started again so that it outlives its starter and its terminal; what it says is kept in memory.

    To be closed by whoever starts it, which ends nothing.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._said = os.memfd_create("stderr", os.MFD_CLOEXEC)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "provisioning", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                start_new_session=True,
                cwd="/",
                env=dict(environment),
            )
        except OSError:
            self.close()
            raise
        self.pid = self._process.pid

    def ended(self) -> bool:
        """Whether it has ended already."""
        return self._process.poll() is not None

    def wait(self, seconds: float) -> int | None:
        """Its exit code, negative for a signal, as soon as it has ended; None where it lives on after the time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def said(self) -> str:
        """What it has written to stderr."""
        return os.pread(self._said, 1 << 16, 0).decode(errors="replace").strip()

    def close(self) -> None:
        """Let go of what it has said."""
        os.close(self._said)
