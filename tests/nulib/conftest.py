"""Operations as both kinds of user."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nulib.attempts import NOBODY, Operations, server_processes


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
        yield Operations(folder, user)
        for record in (folder / "servers").glob("*/*/keeper"):
            for pid in server_processes(record.parent.name):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
