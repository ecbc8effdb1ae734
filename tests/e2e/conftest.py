"""The program as a user runs it: the installed command, on a spool and with a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser import Visited, browsing
from tests.e2e.built import Built, build
from tests.gateway import Gateway
from tests.installation import Installation

ROOT = Path(__file__).parents[2]
PROGRAM = Path(os.environ.get("TESTED_PROGRAM") or Path(sys.executable).with_name("provisioning"))
"""The command that is tested: the checkout's own, or another one, as that of a wheel or the one file."""

UNPACKED = {name: value for name, value in os.environ.items() if name == "PROVISIONING_CACHE"}
"""Where the one file is to unpack itself, for the environment of what is tested."""


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
            **UNPACKED,
        }
        if (nu := os.environ.get("PROVISIONING_NU")) and "TESTED_PROGRAM" not in os.environ:
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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first builds the one file: that takes 15 s on an idle machine, and longer on a busy one."""
    for item in items:
        if "one_file" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="session")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one-file program, built once for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    return build((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "one-file")


@pytest.fixture
def built(one_file: Path, tmp_path: Path) -> Iterator[Built]:
    """The one-file program, never started before, with a folder of its own; no orchestrator is left behind."""
    folder = tmp_path.resolve()
    one = Built(one_file, folder)
    yield one
    if (folder / "spool").exists():
        subprocess.run(
            [one_file, "orchestrator", "stop", "--now"],
            env=one.environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as found:
        yield found


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visited]]:
    """Opens tabs, which are closed after the test. What is expected of them may take long on a busy machine."""
    expect.set_options(timeout=30_000)
    tabs: list[Visited] = []

    def make(origin: str | Gateway, part: str = "", **settings: Any) -> Visited:
        address = origin if isinstance(origin, str) else f"http://127.0.0.1:{origin.port}"
        tabs.append(Visited(browser, address, part, **settings))
        return tabs[-1]

    yield make
    for tab in tabs:
        sys.stdout.write(f"{tab.said}\n{tab.page.locator('body').inner_text()[:2000]}\n")  # for a test that fails
        tab.context.close()


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def site(tmp_path: Path, cache_dir: Path) -> Iterator[Installation]:
    made = Installation(tmp_path, cache_dir)
    yield made
    made.close()
