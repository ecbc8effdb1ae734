"""The program as a user runs it: the installed command, on a spool and with a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).with_name("provisioning")


class Program:
    """The `provisioning` command with a spool of its own."""

    def __init__(self, folder: Path) -> None:
        self.spool = folder / "spool"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PROVISIONING_SPOOL": str(self.spool),
            "PROVISIONING_PATHS_CACHE": str(folder / "cache"),
            "PROVISIONING_ENVIRONMENT_HOME": str(folder),
            "PROVISIONING_ENVIRONMENT_PROVISIONING_SERVERS": str(folder / "servers"),
        }
        if nu := os.environ.get("PROVISIONING_NU"):
            self.environment["PROVISIONING_NU"] = nu

    def run(self, *arguments: str, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the command; the test fails unless it ends with that code."""
        done = subprocess.run(
            [PROGRAM, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            **options,
        )
        assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def says(self, *arguments: str, code: int = 0) -> str:
        """What the command answers on stdout."""
        return self.run(*arguments, code=code).stdout.strip()

    def json(self, *arguments: str, code: int = 0) -> Any:
        """What the command answers with --json."""
        return json.loads(self.says(*arguments, "--json", code=code))


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """The command on a fresh spool; an orchestrator that a test leaves behind is stopped."""
    one = Program(tmp_path)
    one.run("spool", "init")
    yield one
    subprocess.run(
        [PROGRAM, "orchestrator", "stop", "--now"], env=one.environment, capture_output=True, timeout=60, check=False
    )
