"""The one-file program: built once for a whole test run, and the ways in which the tests start it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

ROOT = Path(__file__).parents[2]


def build(folder: Path) -> Path:
    """The one file, as `packaging/dev binary` makes it; whoever asks first builds it."""
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            command = [str(ROOT / "packaging" / "dev"), "binary", "--only-file", "--to", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            assert done.returncode == 0, done.stderr
    return next(folder.glob("provisioning-*"))


@dataclass(frozen=True)
class Built:
    """The built file, with a folder of a test's own and nothing in its environment but what a test puts there."""

    file: Path
    folder: Path

    @property
    def cache(self) -> Path:
        """Where it unpacks itself."""
        return self.folder / "cache"

    @property
    def unpacked(self) -> list[str]:
        """The names of what it has unpacked, and left there in unpacking."""
        return sorted(path.name for path in (self.cache / "unpacked").iterdir() if path.name != ".lock")

    def environment(self, **more: str) -> dict[str, str]:
        """PATH, a home, the cache and a spool; None in `more` is not to be had."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.folder),
            "PROVISIONING_CACHE": str(self.cache),
            "PROVISIONING_SPOOL": str(self.folder / "spool"),
        } | more

    def run(
        self, *arguments: str, code: int = 0, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run the file; the test fails unless it ends with that code."""
        done = subprocess.run(
            [self.file, *arguments],
            env=self.environment() if env is None else dict(env),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            **options,
        )
        assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start the file in a session of its own."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [self.file, *arguments],
            env=self.environment(),
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
            **options,
        )

    def elsewhere(self, script: str, *, code: int = 0) -> str:
        """What a shell script says in mount and pid namespaces of its own; $FILE is the program, readable by all."""
        prepared = f"""
            set -eu
            mount -t tmpfs -o mode=755 none /mnt
            cp {self.file} /mnt/provisioning
            export FILE=/mnt/provisioning
            {script}
        """
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "bash", "-c", prepared],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == code, f"it ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr
