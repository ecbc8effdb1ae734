"""Spools that several tests begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioning.storage.spool import Spool
from tests.unit.backups import spool_under_way


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An empty one."""
    made = Spool.create(tmp_path / "spool")
    yield made
    made.close()


@pytest.fixture
def under_way(tmp_path: Path) -> Iterator[Spool]:
    """One workflow under way, with `a` done and `b` running; one queued."""
    made = spool_under_way(tmp_path / "spool")
    yield made
    made.close()
