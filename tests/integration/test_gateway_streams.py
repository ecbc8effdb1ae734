"""Fifty who watch at once, one of them asleep: each sees everything, and the orchestrator has nothing to do with it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gateway import Gateway as HttpDoor
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

READERS = 50


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_fifty_readers_cost_the_orchestrator_nothing(site: Installation, gate: Callable[[str], Gate]) -> None:
    door, held = HttpDoor(site), gate("held")
    orchestrator = site.orchestrator()
    tasks = [{"id": "a", "operation": "commands.run", "params": {"argv": ["sh", "-c", held.script]}}]
    tasks += [{"id": f"b{i}", "operation": "selftest.noop", "depends_on": ["a"]} for i in range(20)]
    workflow_id = site.submit(tasks)
    held.reached()
    alone = _used(orchestrator.pid, 1.0)
    told: list[list[object]] = [[] for _ in range(READERS)]
    readers = [threading.Thread(target=_read, args=(door, workflow_id, each)) for each in told]
    with socket.socket() as asleep:
        asleep.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        asleep.connect(("127.0.0.1", door.port))
        asleep.sendall(b"GET /workflows/%s/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % workflow_id.encode())
        for each in readers:
            each.start()
        wait_for(lambda: all(told), what="the first event of each reader")
        watched = _used(orchestrator.pid, 1.0)
        held.open()
        for each in readers:
            each.join(60)
    assert watched <= alone + 0.1, "of one second"
    ends = [each[-1] for each in told]
    assert [end[1:] for end in ends if isinstance(end, tuple)] == [("end", {"state": "succeeded"})] * READERS
    assert all(each == told[0] for each in told)
    assert len(told[0]) > 40


def _read(door: HttpDoor, workflow_id: str, told: list[object]) -> None:
    for event in door.events(workflow_id):
        told.append(event)  # noqa: PERF402 - others look at it meanwhile


def _used(pid: int, seconds: float) -> float:
    """What the process uses in so many seconds."""
    begin = cpu_seconds(pid)
    threading.Event().wait(seconds)
    return cpu_seconds(pid) - begin


def test_a_reader_that_takes_nothing_is_given_up(site: Installation) -> None:
    workflow_id = site.run([{"id": "a", "operation": "selftest.noop"}])
    line = b'{"at":"2026-11-27T00:00:00Z","event":"said","text":"' + b"x" * 1000 + b'"}\n'
    with (site.folder(workflow_id).path / "events.jsonl").open("ab") as file:
        file.write(line * 20_000)
    door = HttpDoor(site, hasty=True)
    with socket.socket() as asleep:
        asleep.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        asleep.connect(("127.0.0.1", door.port))
        asleep.sendall(b"GET /workflows/%s/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % workflow_id.encode())
        asleep.settimeout(20)
        before = time.monotonic()
        wait_for(lambda: _is_closed(asleep), 20, "the end of it")
        assert time.monotonic() - before < 15
    assert len(list(door.events(workflow_id))) > 20_000, "who reads gets all of it"


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side has ended the connection: nothing is read of it."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1


def test_long_and_damaged_lines_stop_no_stream(site: Installation) -> None:
    workflow_id = site.run([{"id": "a", "operation": "selftest.noop"}])
    path = site.folder(workflow_id).path
    with (path / "events.jsonl").open("ab") as file:
        file.write(b'"' + b"x" * 1_000_000 + b'"\n' + b'"a\rdata: b"\n' + b'{"torn": ')
    door = HttpDoor(site)
    told = [data for _, _, data in door.events(workflow_id)]
    assert told[-3:] == ["x" * 1_000_000, "a data: b", {"state": "succeeded"}]
    (path / "workflow.json").write_text("{")
    answer = door.get(f"/workflows/{workflow_id}")
    assert (answer.status, answer.code) == (503, "spool-unusable")
    with socket.create_connection(("127.0.0.1", door.port), timeout=20) as reading:
        reading.sendall(b"GET /workflows/%s/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % workflow_id.encode())
        said = b""
        while not said.endswith(b"0\r\n\r\n"):
            part = reading.recv(65536)
            assert part, "the stream ends as one"
            said += part
    assert said.count(b"HTTP/1.1") == 1
