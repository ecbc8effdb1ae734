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


def installed(root: Path, cache_dir: Path, cluster: Cluster, shared: Path) -> Installation:
    """An installation whose tasks are made by the cluster."""
    return Installation(
        root,
        cache_dir,
        orchestrator_executor="slurm",
        slurm_directory=shared,
        slurm_conf=cluster.client_conf(root / "client.conf"),
        slurm_poll_seconds=0.2,
        slurm_lost_seconds=2,
    )


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path, cluster: Cluster) -> Path:
    """The directory that the nodes share with this host, of which they have been asked."""
    made = tmp_path_factory.mktemp("shared")
    made.chmod(0o700)
    first = installed(tmp_path_factory.mktemp("first"), cache_dir, cluster, made)
    try:
        assert first.start("selftest", "noop").wait(90) == 0, first.said()
    finally:
        first.close()
    assert (made / "probed.json").exists()
    assert not list(made.glob("*/probe/*"))
    return made


@pytest.fixture
def site(tmp_path: Path, cache_dir: Path, cluster: Cluster, shared: Path) -> Iterator[Installation]:
    """Of a test's own."""
    made = installed(tmp_path, cache_dir, cluster, shared)
    yield made
    made.close()
