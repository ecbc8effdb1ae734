"""An installation of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import Installation


@pytest.fixture
def site(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A spool and a configuration; every process started on it ends with the test."""
    made = Installation(tmp_path, tmp_path_factory.mktemp("cache"))
    yield made
    made.close()
