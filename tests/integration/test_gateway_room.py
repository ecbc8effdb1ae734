"""One caller who wants everything: connections, handshakes, streams, turns. The owner is answered all the same."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioning.gateway.connections import EACH
from tests.gateway import STRANGER, Gateway, certified, grant, reachable, token_of
from tests.installation import Installation

HOLD = """
import os, select, socket, sys
user = int(sys.argv[4])
os.setgroups([])
os.setgid(user)
os.setuid(user)
held = []
for _ in range(int(sys.argv[2])):
    try:
        if sys.argv[1].startswith("/"):
            each = socket.socket(socket.AF_UNIX)
            each.connect(sys.argv[1])
        else:
            each = socket.socket()
            each.settimeout(20)
            each.connect(("127.0.0.1", int(sys.argv[1])))
        held.append(each)
    except ConnectionError:
        pass
open_ones, ended = set(held), select.poll()
for each in held:
    ended.register(each, select.POLLIN)
of = {each.fileno(): each for each in held}
while len(open_ones) > int(sys.argv[3]):
    for number, _ in ended.poll(20_000):
        ended.unregister(number)
        open_ones.discard(of[number])
print(len(open_ones), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held(target: int | Path, number: int) -> Iterator[int]:
    """Another user has so many connections that say nothing; how many are left when those too many are closed."""
    command = [sys.executable, "-I", "-c", HOLD, str(target), str(number), str(EACH), str(STRANGER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.communicate()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where everybody reaches the socket."""
    with reachable() as made:
        yield made


@pytest.mark.root
@pytest.mark.nu
def test_a_user_who_holds_connections_shuts_nobody_out(site: Installation, folder: Path) -> None:
    door = Gateway(site, folder=folder)
    with held(door.port, 200) as left:
        assert 0 < left <= EACH
        assert door.get("/workflows").status == 200
    with held(door.path, 200) as left:
        assert 0 < left <= EACH
        assert door.get("/workflows").status == 200
    assert door.said.count("no room for more connections of uid 65534") == 2, "once at each place"


@pytest.mark.root
@pytest.mark.nu
def test_connections_without_a_handshake_are_counted_too(site: Installation) -> None:
    certified(site)
    grant(site, "selftest.noop", operator="alice")
    token_of(site, "alice")
    door = Gateway(site, "--listen", "0.0.0.0:0")
    before = len(list(Path(f"/proc/{door.process.pid}/fd").iterdir()))
    with held(int(door.said.split("https://0.0.0.0:")[1].split()[0]), 200) as left:
        assert 0 < left <= EACH
        assert len(list(Path(f"/proc/{door.process.pid}/fd").iterdir())) <= before + EACH + 10
        assert door.get("/workflows").status == 200
    assert "Traceback" not in door.said
    assert door.said.count("no room for more connections") == 1
