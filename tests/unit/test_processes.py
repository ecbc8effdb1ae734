"""Processes by identity: alive, gone, a zombie, another boot, a pid that somebody else has now."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

from provisioning import processes
from provisioning.core.identifiers import Process
from tests.waiting import wait_for


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits until its stdin ends."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as made:
        yield made
        made.kill()


def of(child: subprocess.Popen[bytes]) -> Process:
    found = processes.identity(child.pid)
    assert found is not None
    return found


def test_this_process_is_alive() -> None:
    assert processes.own_identity().pid == os.getpid()
    assert processes.is_alive(processes.own_identity())


def test_a_zombie_is_not_alive(child: subprocess.Popen[bytes]) -> None:
    process = of(child)
    assert processes.is_alive(process)
    os.kill(child.pid, signal.SIGKILL)
    wait_for(lambda: not processes.is_alive(process))
    assert processes.identity(child.pid) is None
    assert os.path.exists(f"/proc/{child.pid}")  # nobody has reaped it yet
    child.wait()
    assert not processes.is_alive(process)
    assert not processes.send_signal(process, signal.SIGTERM)


def test_a_name_with_spaces_and_brackets_is_read_right() -> None:
    program = "import ctypes, sys; ctypes.CDLL(None).prctl(15, b') S 1 (x'); print('ready', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        with open(f"/proc/{child.pid}/comm", encoding="utf-8") as file:
            assert file.read() == ") S 1 (x\n"
        assert processes.starttime(child.pid) == of(child).starttime
        assert of(child).starttime >= processes.own_identity().starttime
        child.kill()


@pytest.mark.parametrize("change", [{"starttime": 1}, {"boot_id": "another"}])
def test_a_reused_pid_is_another_process(child: subprocess.Popen[bytes], change: dict[str, int | str]) -> None:
    other = msgspec.structs.replace(of(child), **change)
    assert not processes.is_alive(other)
    assert not processes.send_signal(other, signal.SIGKILL)
    assert child.poll() is None


def test_the_right_process_gets_its_signal(child: subprocess.Popen[bytes]) -> None:
    assert processes.send_signal(of(child), signal.SIGTERM)
    assert child.wait(20) == -signal.SIGTERM


def test_a_pid_that_never_was() -> None:
    assert processes.identity(2**22 + 1) is None
    assert processes.starttime(2**22 + 1) is None
