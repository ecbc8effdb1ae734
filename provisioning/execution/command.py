"""Starts programs other than an attempt's: absolute path, own session, no descriptors but the standard ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from provisioning.config import Config
from provisioning.errors import NotFound, Refused, SpoolUnusable

RUN_SECONDS = 120.0
"""A program of the host that takes longer hangs."""

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
"""All that another program gets: what it says is read, so it says it in one language."""


class Said(NamedTuple):
    """How a program ended, and what it wrote."""

    code: int
    stdout: str
    stderr: str


def consult(  # noqa: PLR0913 - what is asked, with what, and how long
    program: Path,
    arguments: Sequence[str],
    *,
    stdin: bytes = b"",
    pass_fds: Sequence[int] = (),
    environment: Mapping[str, str] = ENVIRONMENT,
    seconds: float = 10.0,
) -> Said:
    """What a program says, whose path is absolute, and how it ended; SpoolUnusable where it cannot start, or hangs."""
    try:
        done = subprocess.run(
            [str(program), *arguments],
            input=stdin,
            capture_output=True,
            pass_fds=pass_fds,
            start_new_session=True,
            cwd="/",
            env=dict(environment),
            timeout=seconds,
            check=False,
        )
    except OSError as error:
        raise SpoolUnusable(f"cannot start {program}: {error.strerror}", hint="install it, or name it") from error
    except subprocess.TimeoutExpired:
        raise SpoolUnusable(f"{program} did not end within {seconds:g} s", hint="try it by hand") from None
    return Said(done.returncode, *(text.decode(errors="replace").strip() for text in (done.stdout, done.stderr)))


def become(argv: Sequence[str], config: Config) -> NoReturn:
    """Be another program from now on, on this terminal, in an environment built from nothing."""
    settings = config.environment
    found = shutil.which(argv[0], path=settings.path)
    if found is None:
        raise NotFound(f"there is no program {argv[0]}", hint="look at environment.path in the config")
    environment = {"PATH": settings.path, "HOME": settings.home, "LANG": settings.lang, "TERM": config.term or "dumb"}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(found, list(argv), environment | dict(settings.variables))


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
