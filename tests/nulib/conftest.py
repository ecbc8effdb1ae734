"""Operations as both kinds of user."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nulib.attempts import NOBODY, Operations, end_servers


@pytest.fixture(params=["self", "nobody"])
def operations(request: pytest.FixtureRequest) -> Iterator[Operations]:
    """Operations as the user who tests and, where that is root, as nobody."""
    user = os.geteuid() if request.param == "self" else NOBODY
    if request.param == "nobody" and os.geteuid() != 0:
        pytest.skip("only root can test as nobody")
    with tempfile.TemporaryDirectory(prefix="nulib-") as name:
        folder = Path(name)
        if user != os.geteuid():
            os.chown(folder, user, user)
        operations = Operations(folder, user)
        yield operations
        end_servers(operations)
