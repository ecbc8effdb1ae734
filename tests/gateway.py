"""A gateway as a process, and callers of it: this user, another one, and bytes as they are."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.installation import Installation
from tests.waiting import wait_for

HASTY = Path(__file__).with_name("hasty_gateway.py")
"""Starts a gateway that has little patience, and room for few."""
STRANGER = 65534
"""A user who is not the spool's."""


class Answered(NamedTuple):
    """An answer: status, headers, and its body, as JSON where it is."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def data(self) -> Any:
        """What was asked for."""
        assert self.status in (200, 202), self
        assert self.body["success"] is True
        return self.body["data"]

    @property
    def code(self) -> str:
        """What kind of error it is; each has the same form."""
        assert self.body["success"] is False, self
        error = self.body["error"]
        assert {"code", "message", "hint"} <= error.keys()
        assert "Traceback" not in json.dumps(self.body)
        return str(error["code"])


class Gateway:
    """One that listens on loopback, on a port that was free, and on a unix socket."""

    def __init__(self, site: Installation, *more: str, hasty: bool = False, folder: Path | None = None) -> None:
        self.site = site
        self.path = (folder or site.root) / "gateway.sock"
        before = len(list(site.root.glob("said.*")))
        program, site.program = site.program, (sys.executable, str(HASTY)) if hasty else site.program
        try:
            self.process = site.start("serve", "--listen", "localhost:0", "--listen", f"unix:{self.path}", *more)
        finally:
            site.program = program
        self._said = site.root / f"said.{before}"
        wait_for(self._listens, what="the gateway")
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.said)
        assert found, self.said
        self.port = int(found[1])

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.said
        return "listens on unix:" in self.said

    @property
    def said(self) -> str:
        """What it told on stderr."""
        return self._said.read_text()

    def call(self, method: str, path: str, body: Any = None, *, host: str = "127.0.0.1", **headers: str) -> Answered:
        """One call of this user. Headers are written with _."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None:
            given.setdefault("Content-Type", "application/json")
        with contextlib.closing(http.client.HTTPConnection(host, self.port, timeout=30)) as connection:
            connection.request(method, path, data, given)
            return _answered(connection.getresponse())

    def get(self, path: str, **headers: str) -> Answered:
        """Look at something."""
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answered:
        """Submit or ask something."""
        return self.call("POST", path, body, **headers)

    def raw(self, data: bytes, seconds: float = 20) -> bytes:
        """Send these bytes; all that comes back until the other side closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.sendall(data)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def as_stranger(self, method: str, path: str, body: Any = None, *, unix: bool = False) -> Answered:
        """One call of another user, by curl."""
        data = ["-H", "Content-Type: application/json", "--data", json.dumps(body)] if body is not None else []
        place = ["--unix-socket", str(self.path), "http://here"] if unix else [f"http://127.0.0.1:{self.port}"]
        place[-1] += path
        done = subprocess.run(
            ["curl", "-sS", "-q", "-X", method, "-w", "\n%{http_code}", *data, *place],
            user=STRANGER, group=STRANGER, extra_groups=[], env={}, cwd="/", capture_output=True, check=True,
            timeout=30,
        )  # fmt: skip
        text, _, status = done.stdout.rpartition(b"\n")
        return Answered(int(status), {}, json.loads(text))

    def events(self, workflow_id: str, last: str | None = None) -> Iterator[tuple[str, str, Any]]:
        """The events of a workflow as they come: id, name, data; ends where the stream does."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            given = {"Last-Event-ID": last} if last is not None else {}
            connection.request("GET", f"/workflows/{workflow_id}/events", headers=given)
            response = connection.getresponse()
            assert response.status == 200
            assert response.getheader("Content-Type") == "text/event-stream"
            assert response.getheader("X-Content-Type-Options") == "nosniff"
            event: dict[str, str] = {}
            while line := response.readline():
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    event[name] = value
                elif "data" in event:
                    yield event.get("id", ""), event.get("event", ""), json.loads(event["data"])
                    event = {}
                else:
                    event = {}


def _answered(response: http.client.HTTPResponse) -> Answered:
    text, headers = response.read(), dict(response.getheaders())
    body = json.loads(text) if text and headers.get("Content-Type", "").startswith("application/json") else text
    return Answered(response.status, headers, body)


@contextlib.contextmanager
def reachable() -> Iterator[Path]:
    """A folder that every user may pass through: those of tests are closed to others."""
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder:
        os.chmod(folder, 0o711)
        yield Path(folder)


def certified(site: Installation) -> Path:
    """Give the gateway a certificate for 127.0.0.1, and its key; the certificate."""
    path, key = site.root / "cert.pem", site.root / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", path],
        check=True, capture_output=True,
    )  # fmt: skip
    key.chmod(0o600)
    site.settings(gateway_certificate=path, gateway_key=key)
    return path


def said_by(site: Installation, *words: str, code: int = 0) -> str:
    """What a command says that ends so."""
    before = len(list(site.root.glob("said.*")))
    assert site.start(*words).wait(30) == code, site.said()
    return (site.root / f"said.{before}").read_text()


def token_of(site: Installation, operator: str) -> str:
    """Make a token for an operator, and put its hash where the gateway looks."""
    made = json.loads(said_by(site, "authority", "token", operator, "--json").partition("add to")[0])
    path = site.root / "tokens.toml"
    with path.open("a") as file:
        file.write(f'[[token]]\noperator = "{operator}"\nsha256 = "{made["sha256"]}"\n')
    path.chmod(0o600)
    site.settings(paths_tokens=path)
    assert made["token"] not in path.read_text()
    return str(made["token"])


def grant(site: Installation, *operations: str, operator: str = "nobody") -> None:
    """Write a grant."""
    text = f"[[grant]]\noperators = [{operator!r}]\noperations = {list(operations)!r}\n".replace("'", '"')
    path = site.root / "authority.toml"
    path.write_text(text)
    path.chmod(0o600)
    site.settings(paths_authority=path)
