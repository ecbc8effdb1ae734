"""An UpCloud API 1.3 that costs nothing: servers with their state machine, both forms of errors, and faults on demand.

Made from the public description of the API: https://developers.upcloud.com/1.3/
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

TOKEN = "ucat_0123456789"
TEMPLATE = "01000000-0000-4000-8000-000020070100"
PLANS = [
    {"name": "1xCPU-1GB", "core_number": 1, "memory_amount": 1024, "storage_size": 25, "storage_tier": "maxiops"},
    {"name": "2xCPU-4GB", "core_number": 2, "memory_amount": 4096, "storage_size": 80, "storage_tier": "maxiops"},
]
ZONES = [
    {"id": "fi-hel1", "description": "Helsinki #1", "public": "yes"},
    {"id": "de-fra1", "description": "Frankfurt #1", "public": "yes"},
]
LOOKS_OF_MAINTENANCE = 2
"""So often a server that changes is seen in maintenance."""


class Refusal(Exception):
    """An answer that is no success. `old` is the form that the API had first."""

    def __init__(self, status: int, code: str, message: str, *, old: bool = False, retry_after: int | None = None):
        super().__init__(code)
        self.status, self.code, self.message, self.old, self.retry_after = status, code, message, old, retry_after

    def body(self) -> dict[str, Any]:
        if self.old:
            return {"error": {"error_code": self.code, "error_message": self.message}}
        return {
            "type": f"https://developers.upcloud.com/1.3/errors#ERROR_{self.code}",
            "title": self.message,
            "status": self.status,
            "correlation_id": "01H",
            "invalid_params": [{"name": "plan", "reason": "look at it"}] if self.status == 400 else [],
        }


class Fault:
    """What happens to the next request that matches, so many times."""

    def __init__(self, method: str, path: str, kind: str | Refusal, times: int = 1) -> None:
        self.method, self.pattern, self.kind, self.left = method, re.compile(path), kind, times
        self.go_on = threading.Event()
        self.reached = threading.Event()


class FakeUpCloud:
    """The state of one account, and the door to it at `url`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.servers: dict[str, dict[str, Any]] = {}
        self.storages: set[str] = set()
        self.calls: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self._next: dict[str, tuple[int, str]] = {}
        connection = type("Connection", (_Connection,), {"account": self})
        self._door = ThreadingHTTPServer(("127.0.0.1", 0), connection)
        self._door.daemon_threads = True
        if tls:
            self._door.socket = tls.wrap_socket(self._door.socket, server_side=True)
        self._thread = threading.Thread(target=self._door.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"{'https://localhost' if tls else 'http://127.0.0.1'}:{self._door.server_port}"

    def close(self) -> None:
        """Close the door."""
        for fault in self.faults:
            fault.go_on.set()
        self._door.shutdown()
        self._door.server_close()
        self._thread.join()

    def inject(self, method: str, path: str, kind: str | Refusal, times: int = 1) -> Fault:
        """Let the next requests fail.

        A Refusal is answered and nothing is done. `dropped` does what is asked and closes the connection without an
        answer; `lost` closes it and does nothing; `slow` does it and answers when `go_on` is set; `late` does it then.
        """
        fault = Fault(method, path, kind, times)
        self.faults.append(fault)
        return fault

    def fault(self, method: str, path: str) -> Fault | None:
        """The fault that meets this request."""
        with self.lock:
            for fault in self.faults:
                if fault.left and fault.method == method and fault.pattern.search(path):
                    fault.left -= 1
                    return fault
        return None

    # What the API does

    def do(self, method: str, path: str, query: list[tuple[str, str]], body: dict[str, Any]) -> tuple[int, Any]:
        """Answer one request: status and body."""
        with self.lock:
            self.calls.append(f"{method} {path}")
            parts = path.strip("/").split("/")
            if parts[0] == "server":
                return self._server(method, parts[1:], query, body)
            if method != "GET":
                raise Refusal(405, "METHOD_NOT_ALLOWED", "This cannot be done here.")
            return 200, self._read("/".join(parts))

    def _read(self, path: str) -> Any:
        if path == "plan":
            return {"plans": {"plan": PLANS}}
        if path == "zone":
            return {"zones": {"zone": ZONES}}
        if path == "storage/template":
            return {"storages": {"storage": [{"uuid": TEMPLATE, "title": "Debian GNU/Linux 12 (Bookworm)"}]}}
        if path == "price":
            zones = [{"name": zone["id"], "server_plan_1xCPU-1GB": {"amount": 1, "price": 0.744}} for zone in ZONES]
            return {"prices": {"zone": zones}}
        raise Refusal(404, "NOT_FOUND", "There is no such thing.")

    def _server(
        self, method: str, parts: list[str], query: list[tuple[str, str]], body: dict[str, Any]
    ) -> tuple[int, Any]:
        if not parts:
            if method == "GET":
                return 200, {"servers": {"server": self._list(query)}}
            return 202, {"server": self._create(body["server"])}
        server = self.servers.get(parts[0])
        if server is None:
            raise Refusal(404, "SERVER_NOT_FOUND", f"The server {parts[0]} does not exist.", old=True)
        verb = parts[1] if len(parts) > 1 else ""
        if method == "GET":
            return 200, {"server": self._looked_at(server)}
        if method == "DELETE":
            self._must_be(server, "stopped", "error")
            del self.servers[server["uuid"]]
            if ("storages", "1") in query:
                self.storages -= set(server["_storages"])
            return 204, None
        if verb == "start":
            self._must_be(server, "stopped")
            self._change(server, "started")
        elif verb == "stop":
            self._must_be(server, "started")
            assert body["stop_server"]["stop_type"] in ("soft", "hard")
            self._change(server, "stopped")
        elif verb == "restart":
            self._must_be(server, "started")
            self._change(server, "started")
        else:
            raise Refusal(404, "NOT_FOUND", "There is no such thing.")
        return 200, {"server": _shown(server)}

    def _list(self, query: list[tuple[str, str]]) -> list[dict[str, Any]]:
        wanted = [value.split("=", 1) for name, value in query if name == "label"]
        found = [
            server
            for server in self.servers.values()
            if all({"key": key, "value": value} in server["labels"]["label"] for key, value in wanted)
        ]
        begin, most = (int(dict(query).get(name, default)) for name, default in (("offset", 0), ("limit", 10)))
        shown = [{key: item for key, item in _shown(one).items() if key != "networking"} for one in found]
        return shown[begin : begin + min(most, 100)]

    def _create(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["plan"] not in [plan["name"] for plan in PLANS]:
            raise Refusal(400, "PLAN_INVALID", "The plan is not known.")
        if asked["zone"] not in [zone["id"] for zone in ZONES]:
            raise Refusal(404, "ZONE_NOT_FOUND", "The zone does not exist.", old=True)
        storage = asked["storage_devices"]["storage_device"][0]
        assert (storage["action"], storage["storage"]) == ("clone", TEMPLATE)
        assert asked["login_user"]["create_password"] == "no"
        number = len(self.calls) % 250 + 1
        server = {
            "uuid": str(uuid.uuid4()),
            **{key: asked[key] for key in ("title", "hostname", "plan", "zone", "labels")},
            "_storages": [str(uuid.uuid4())],
            "_keys": asked["login_user"]["ssh_keys"]["ssh_key"],
            "state": "maintenance",
            "networking": {
                "interfaces": {
                    "interface": [_interface("public", f"192.0.2.{number}"), _interface("utility", f"10.9.0.{number}")]
                }
            },
        }
        self.storages |= set(server["_storages"])
        self.servers[server["uuid"]] = server
        self._change(server, "started")
        return _shown(server)

    def _must_be(self, server: dict[str, Any], *states: str) -> None:
        if server["state"] not in states:
            message = f"The server is {server['state']}, which does not allow that."
            raise Refusal(409, "SERVER_STATE_ILLEGAL", message, old=True)

    def _change(self, server: dict[str, Any], state: str) -> None:
        server["state"] = "maintenance"
        self._next[server["uuid"]] = (LOOKS_OF_MAINTENANCE, state)

    def _looked_at(self, server: dict[str, Any]) -> dict[str, Any]:
        """A server's details; what it changes to comes nearer with each look."""
        if server["uuid"] in self._next:
            left, state = self._next[server["uuid"]]
            if left:
                self._next[server["uuid"]] = (left - 1, state)
            else:
                server["state"] = state
                del self._next[server["uuid"]]
        return _shown(server)


def _interface(kind: str, address: str) -> dict[str, Any]:
    return {"type": kind, "ip_addresses": {"ip_address": [{"address": address, "family": "IPv4"}]}}


def _shown(server: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in server.items() if not key.startswith("_")}


class _Connection(BaseHTTPRequestHandler):
    """One connection. `account` is set by a subclass."""

    account: FakeUpCloud
    protocol_version = "HTTP/1.1"

    def _answer(self, status: int, body: Any, retry_after: int | None = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(data)

    def _handle(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        path = url.path.removeprefix("/1.3")
        fault = self.account.fault(self.command, path)
        if fault and fault.kind == "lost":
            self.close_connection = True
            return
        if fault and fault.kind == "late":
            fault.reached.set()
            fault.go_on.wait(30)
        try:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refusal(401, "AUTHENTICATION_FAILED", "Authentication failed.")
            if fault and isinstance(fault.kind, Refusal):
                raise fault.kind
            status, answer = self.account.do(self.command, path, parse_qsl(url.query), body)
        except Refusal as refusal:
            self._answer(refusal.status, refusal.body(), refusal.retry_after)
            return
        if fault:
            fault.reached.set()
        if fault and fault.kind == "dropped":
            self.close_connection = True
            return
        if fault and fault.kind == "slow":
            fault.go_on.wait(30)
        try:
            self._answer(status, answer)
        except OSError:
            self.close_connection = True

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815 - the names that the base class calls

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
