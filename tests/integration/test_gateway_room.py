"""One caller who wants everything: connections, handshakes, streams, turns. The owner is answered all the same."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioning.gateway.connections import EACH
from provisioning.gateway.turns import STREAMS, UNDER_WAY, WAITING
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


def opened(door: Gateway, token: str, call: str, number: int, until: contextlib.ExitStack) -> list[socket.socket]:
    """So many connections, each with the head of this call."""
    head = f"{call} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
    made = [until.enter_context(socket.create_connection(("127.0.0.1", door.port), timeout=30)) for _ in range(number)]
    for each in made:
        each.sendall(f"{head}Content-Type: application/json\r\n".encode())
    return made


@pytest.mark.nu
def test_an_operator_whose_calls_never_end_keeps_nobody_waiting(site: Installation) -> None:
    grant(site, "selftest.noop", operator="*")
    alice, bob = token_of(site, "alice"), {"Authorization": f"Bearer {token_of(site, 'bob')}"}
    door, number = Gateway(site), UNDER_WAY + WAITING
    with contextlib.ExitStack() as until:
        calls = opened(door, alice, "POST /workflows/selftest/noop", number + 1, until)
        for each in calls:
            each.sendall(b"Content-Length: 2\r\n\r\n")  # and no body
        ready, _, _ = select.select(calls, [], [], 30)
        said = [each.recv(4096) for each in ready]
        assert len(said) == 1, said
        assert said[0].startswith(b"HTTP/1.1 429 ")
        assert b"Retry-After: 1" in said[0]
        assert b'"code": "busy"' in said[0]
        for who in ({}, bob):
            assert door.post("/workflows/selftest/noop", {}, **who).status == 202
            assert door.get("/workflows", **who).status == 200
            assert door.get("/health", **who).status in (200, 503)
        for each in calls:
            if each not in ready:
                each.sendall(b"{}")
        assert [each.recv(4096)[:12] for each in calls if each not in ready] == [b"HTTP/1.1 202"] * number


@pytest.mark.nu
def test_an_operator_follows_so_many_streams_and_no_more(site: Installation) -> None:
    grant(site, "selftest.noop", operator="alice")
    alice = token_of(site, "alice")
    door = Gateway(site)
    workflow_id = door.post("/workflows/selftest/noop", {}, Authorization=f"Bearer {alice}").data["workflow_id"]
    with contextlib.ExitStack() as until:
        for number in range(STREAMS + 1):
            (stream,) = opened(door, alice, f"GET /workflows/{workflow_id}/events", 1, until)
            stream.sendall(b"\r\n")
            begun = b"200" if number < STREAMS else b"429"
            assert stream.recv(4096).startswith(b"HTTP/1.1 " + begun), number
        assert door.get(f"/workflows/{workflow_id}", Authorization=f"Bearer {alice}").status == 200
        own = until.enter_context(socket.create_connection(("127.0.0.1", door.port), timeout=30))
        own.sendall(f"GET /workflows/{workflow_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert own.recv(4096).startswith(b"HTTP/1.1 200")
