"""What a supervisor hears, on a real notify socket, and what it does not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioning.config import Config
from provisioning.storage.spool import Spool
from tests.e2e.conftest import PROGRAM


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[socket.socket]:
    """The supervisor's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        listening.settimeout(30)
        yield listening


def heard(ear: socket.socket) -> tuple[str, int]:
    """The next message, and the pid that the kernel says it is from."""
    data, credentials, _, _ = ear.recvmsg(4096, socket.CMSG_SPACE(12))
    return data.decode(), int.from_bytes(credentials[0][2][:4], "little")


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """A spool of its own, and a supervisor that listens."""
    Spool.create(tmp_path / "spool").close()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PROVISIONING_SPOOL": str(tmp_path / "spool"),
        "PROVISIONING_PATHS_CACHE": os.environ.get("XDG_CACHE_HOME", str(tmp_path / "cache")),
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        **more,
    }


def test_ready_alive_and_stopping_come_from_the_orchestrator_itself(tmp_path: Path, ear: socket.socket) -> None:
    with subprocess.Popen(
        [PROGRAM, "orchestrator", "run"], env=environment(tmp_path, WATCHDOG_USEC="400000")
    ) as process:
        ready, pid = heard(ear)
        assert ready.startswith(f"READY=1\nSTATUS=works {tmp_path / 'spool'}")
        assert pid == process.pid
        assert [heard(ear)[0] for _ in range(5)] == ["WATCHDOG=1"] * 5
        process.send_signal(signal.SIGTERM)
        last = ""
        while not last.startswith("STOPPING=1"):
            last, pid = heard(ear)
            assert pid == process.pid
    assert process.returncode == 0


@pytest.mark.nu
def test_the_gateway_is_ready_once_it_listens(tmp_path: Path, ear: socket.socket) -> None:
    place = f"unix:{tmp_path / 'gateway.sock'}"
    with subprocess.Popen([PROGRAM, "serve", "--listen", place], env=environment(tmp_path)) as process:
        try:
            assert heard(ear) == (f"READY=1\nSTATUS=listens on {place}", process.pid)
            with socket.socket(socket.AF_UNIX) as calling:
                calling.connect(str(tmp_path / "gateway.sock"))
        finally:
            process.terminate()
    assert process.returncode == 0


@pytest.mark.parametrize("address", ["", "notify-is-relative", "/nowhere/notify"])
def test_nobody_who_listens_is_no_error(tmp_path: Path, address: str) -> None:
    done = subprocess.run(
        [PROGRAM, "orchestrator", "run", "--until-empty"],
        env=environment(tmp_path, NOTIFY_SOCKET=address, WATCHDOG_USEC="x"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_watchdog_is_this_process_s_or_nobody_s() -> None:
    mine = {"NOTIFY_SOCKET": "@name", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    assert Config.load({}, mine, euid=0).supervisor.watchdog_seconds == 3.0
    other = mine | {"WATCHDOG_PID": "1"}
    assert Config.load({}, other, euid=0).supervisor.watchdog_seconds == 0.0
