"""`provisioning server ssh` as a person has it: on a terminal, in a machine by a real sshd, and in a local server."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.installation import Installation
from tests.nulib.sites import INFRA, local_site, ssh_site

pytestmark = pytest.mark.nu


class Terminal:
    """A command on a terminal of its own, and who types there."""

    def __init__(self, words: Sequence[object], environment: dict[str, str]) -> None:
        self._mine, its = pty.openpty()
        try:
            self._process = subprocess.Popen(
                ["setsid", "--ctty", *map(str, words)], stdin=its, stdout=its, stderr=its, env=environment
            )
        finally:
            os.close(its)
        self.seen = ""

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._mine, text.encode())

    def wait_for(self, text: str, seconds: float = 30) -> None:
        """Read until the text has been shown."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            readable, _, _ = select.select([self._mine], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"waited {seconds} s for {text!r}, saw {self.seen!r}"
            self._read()

    def _read(self) -> bool:
        try:
            data = os.read(self._mine, 1 << 16)
        except OSError:  # EIO: nobody has the other end open any more
            data = b""
        self.seen += data.decode(errors="replace")
        assert data or self._process.poll() is not None, self.seen
        return bool(data)

    def end(self) -> int:
        """The exit code, once it has ended by itself."""
        with contextlib.suppress(AssertionError):
            while self._read():
                pass
        return self._process.wait(30)

    def close(self) -> None:
        """End it if it still is there."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._mine)


@contextlib.contextmanager
def login(installation: Installation, name: str, *before: object) -> Iterator[Terminal]:
    """A terminal on which somebody has typed `provisioning server ssh`."""
    words = [*before, sys.executable, "-m", "provisioning", "server", "ssh", name, "--infra", INFRA]
    terminal = Terminal(words, installation.environment | {"TERM": "vt100"})
    try:
        yield terminal
    finally:
        terminal.close()


def work_in(terminal: Terminal) -> None:
    """See that a shell answers, that it has a terminal, and that the exit code comes back."""
    # What is typed is echoed, so what is looked for is not in it.
    terminal.type("test -t 0 && test -t 1 && echo on a terminal: $((40 + 2))\n")
    terminal.wait_for("on a terminal: 42")
    terminal.type("stty size; echo TERM is <$TERM>\n".replace("<", "'<'").replace(">", "'>'"))
    terminal.wait_for("<vt100>")
    terminal.type("exit 7\n")
    assert terminal.end() == 7, terminal.seen


def test_in_a_machine_by_ssh(site: Installation) -> None:
    with ssh_site() as machines:
        site.settings(paths_infra=machines.operations.infra)
        machines.operations.run("servers.create", name="web-1", infra=INFRA, provider="ssh")
        with login(site, "web-1", *machines.operations.before) as terminal:
            work_in(terminal)
        (machines.machines["web-2"].folder / "authorized_keys").write_text("")
        with login(site, "web-2", *machines.operations.before) as terminal:
            assert terminal.end() == 1, terminal.seen
        assert "look at user and key in the infra's settings" in terminal.seen


def test_in_a_local_server(site: Installation) -> None:
    with local_site() as local:
        site.settings(paths_infra=local.operations.infra, environment_provisioning_servers=local.operations.servers)
        local.operations.run("servers.create", name=local.name, infra=INFRA)
        with login(site, local.name) as terminal:
            terminal.type("cat /etc/hostname\n")
            terminal.wait_for(f"{local.name}\r\n")
            work_in(terminal)


def test_a_server_that_is_not_there(site: Installation, tmp_path: Path) -> None:
    site.settings(environment_provisioning_servers=tmp_path / "servers")
    (tmp_path / "infra" / INFRA).mkdir(parents=True)
    (tmp_path / "infra" / INFRA / "settings.toml").write_text('provider = "local"\n')
    site.settings(paths_infra=tmp_path / "infra")
    with login(site, "web-1") as terminal:
        assert terminal.end() == 4, terminal.seen
    assert f"provisioning server create web-1 --infra {INFRA}" in " ".join(terminal.seen.split())
