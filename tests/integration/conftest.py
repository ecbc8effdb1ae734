"""An installation of a test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.installation import Gate, Installation


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of the catalogue for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def site(tmp_path: Path, cache_dir: Path) -> Iterator[Installation]:
    """A spool and a configuration; every process started on it ends with the test."""
    made = Installation(tmp_path, cache_dir)
    yield made
    made.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Callable[[str], Gate]]:
    """Makes gates at which scripts wait."""
    gates: list[Gate] = []

    def make(name: str = "gate") -> Gate:
        gates.append(Gate(tmp_path / name))
        return gates[-1]

    yield make
    for one in gates:
        one.close()
