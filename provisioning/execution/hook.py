"""A program of the operator's that is told something: on stdin, in a session of its own, for so long and no longer."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from provisioning.clock import boottime
from provisioning.errors import SpoolUnusable

SAID_BYTES = 2000
"""So much of what it says on stderr is kept."""


class Hook:
    """One run of it. Nothing here waits for it: what it reads is in memory, and what it says is taken as it comes."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], data: bytes, seconds: float) -> None:
        """Start it; SpoolUnusable where that cannot be done."""
        self._deadline = boottime() + seconds
        self._seconds = seconds
        self._said = b""
        self._late = False
        told = os.memfd_create("notice", os.MFD_CLOEXEC)
        try:
            os.write(told, data)
            os.lseek(told, 0, os.SEEK_SET)
            self._process = subprocess.Popen(
                list(argv),
                stdin=told,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                cwd="/",
                env=dict(environment),
            )
        except OSError as error:
            raise SpoolUnusable(
                f"cannot start {argv[0]}: {error.strerror}", hint="see [notify] in the config"
            ) from error
        finally:
            os.close(told)
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        self.descriptor = os.pidfd_open(self._process.pid)
        """Readable once it has ended."""

    def due(self) -> float:
        """The boottime at which it is ended."""
        return self._deadline

    def ended(self) -> bool:
        """Whether it has; one whose time is over is made to, with all that it has started."""
        self._listen()
        if self._process.poll() is not None:
            return True
        if boottime() < self._deadline:
            return False
        self._late = True
        self._end()
        return True

    def failure(self) -> str:
        """Why it did not do its work, of one that has ended; empty if it did."""
        code = self._process.returncode
        if code == 0:
            return ""
        said = self._said.decode(errors="replace").strip()
        how = f"did not end within {self._seconds:g} s" if self._late else f"ended with {code}"
        return f"{how}: {said}" if said else how

    def close(self) -> None:
        """Let go of it; one that has not ended goes on."""
        os.close(self.descriptor)
        assert self._process.stderr is not None
        self._process.stderr.close()
        if self._process.poll() is None:
            self._process.returncode = 0  # it is meant to go on: nobody has to be warned of that

    def _listen(self) -> None:
        """Keep the beginning of what it says, and take the rest, so that it never waits for a reader."""
        assert self._process.stderr is not None
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                data = os.read(self._process.stderr.fileno(), 1 << 16)
                if not data:
                    return
                self._said = (self._said + data)[:SAID_BYTES]

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
