"""What stands between a site and a cloud: a certificate authority of its own, and a proxy."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")


def own_authority(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """The certificate of a new authority, and what a server that it vouches for as `localhost` speaks TLS with."""

    def request(name: str, *more: str) -> tuple[Path, Path]:
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        words = [
            "openssl",
            "req",
            "-x509",
            *KEY,
            "-subj",
            f"/CN={name}",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
            *more,
        ]
        subprocess.run(words, check=True, capture_output=True)
        return certificate, key

    authority, authority_key = request("authority")
    names = ("-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE")
    certificate, key = request("server", "-CA", str(authority), "-CAkey", str(authority_key), *names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return authority, context


class Proxy:
    """A proxy that makes tunnels, and notes where to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        tunnel = type("Tunnel", (_Tunnel,), {"asked": self.asked})
        self._door = ThreadingHTTPServer(("127.0.0.1", 0), tunnel)
        self._door.daemon_threads = True
        self._thread = threading.Thread(target=self._door.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._door.server_port}"

    def close(self) -> None:
        """Close the door."""
        self._door.shutdown()
        self._door.server_close()
        self._thread.join()


class _Tunnel(BaseHTTPRequestHandler):
    """One connection. `asked` is set by a subclass."""

    asked: list[str]
    protocol_version = "HTTP/1.1"

    def do_CONNECT(self) -> None:
        """Pass bytes on, both ways, until one end closes."""
        self.asked.append(self.path)
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as far:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pour, args=(far, self.connection))
            back.start()
            _pour(self.connection, far)
            back.join()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _pour(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxy() -> Iterator[Proxy]:
    """A proxy on loopback."""
    made = Proxy()
    try:
        yield made
    finally:
        made.close()
