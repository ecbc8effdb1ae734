"""A host of a test's own; the undisturbed run of the sweeps."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.crash.host import Host
from tests.crash.undisturbed import Undisturbed, record


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path, monkeypatch)
    yield made
    made.close()


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of the catalogue for all runs."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Undisturbed:
    """The run with which all others are compared, made once for all processes of the tests."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    kept = folder / "undisturbed.pickle"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            kept.write_bytes(pickle.dumps(record(tmp_path_factory.mktemp("undisturbed"), cache_dir)))
    made: Undisturbed = pickle.loads(kept.read_bytes())
    return made
