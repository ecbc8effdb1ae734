"""A cluster for all tests of this folder, and an installation that uses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import Installation
from tests.slurm.cluster import Cluster, lacking


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of the catalogue for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes; skipped with the reason where there can be none."""
    if reason := lacking():
        pytest.skip(reason)
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the nodes share with this host."""
    made = tmp_path_factory.mktemp("shared")
    made.chmod(0o700)
    return made


@pytest.fixture
def site(tmp_path: Path, cache_dir: Path, cluster: Cluster, shared: Path) -> Iterator[Installation]:
    """An installation whose tasks are made by the cluster."""
    made = Installation(
        tmp_path,
        cache_dir,
        orchestrator_executor="slurm",
        slurm_directory=shared,
        slurm_conf=cluster.client_conf(tmp_path / "client.conf"),
        slurm_poll_seconds=0.2,
        slurm_lost_seconds=2,
    )
    yield made
    made.close()
