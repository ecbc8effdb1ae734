"""What several property tests need."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def locks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the file of target locks, which no example leaves anything in."""
    return tmp_path_factory.mktemp("locks")
