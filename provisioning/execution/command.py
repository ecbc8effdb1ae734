"""Starts programs other than an attempt's: absolute path, own session, no descriptors but the standard ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from provisioning.errors import Refused

RUN_SECONDS = 120.0
"""A program of the host that takes longer hangs."""


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


def run(arguments: Sequence[str], *, owner: tuple[int, int] | None = None, home: str = "/", check: bool = True) -> str:
    """What a program of the host says on stdout, at its end; as uid and gid `owner` where they are given.

    Refused with what it said on stderr where it fails; with `check` false a failure says nothing.
    """
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": home,
        "LANG": "C.UTF-8",
    }
    identity: dict[str, Any] = {"user": owner[0], "group": owner[1], "extra_groups": []} if owner else {}
    done = subprocess.run(
        list(arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd="/",
        env=environment,
        timeout=RUN_SECONDS,
        check=False,
        **identity,
    )
    if done.returncode and check:
        said = done.stderr.decode(errors="replace").strip()[-1000:] or f"exit code {done.returncode}"
        raise Refused(f"{' '.join(arguments)} failed: {said}", hint="see to it, then give the same command again")
    said_on_stdout: bytes = done.stdout
    return said_on_stdout.decode(errors="replace")
