"""Hostile HTTP: other sites' pages, names made to lead here, what is too large, too slow, or no HTTP; and nothing of it
reaches the spool or costs more than its own connection.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT
from tests.gateway import Gateway
from tests.installation import Installation

pytestmark = pytest.mark.nu

STATIC = ROOT / "provisioning" / "gateway" / "static"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for all of it: it must still answer at the end."""
    root = tmp_path_factory.mktemp("hostile")
    site = Installation(root, tmp_path_factory.mktemp("cache"))
    site.settings(gateway_body_bytes="64KiB")
    yield Gateway(site, hasty=True)
    site.close()


@pytest.fixture(autouse=True)
def unharmed(door: Gateway) -> Iterator[None]:
    yield
    assert door.site.spool.workflow_ids() == [], "something was submitted"
    assert door.get("/workflows").status == 200
    assert "Traceback" not in door.said
    assert "internal error" not in door.said


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:9090", "localhost.evil.example", "127.0.0.1.nip.io", "[::2]"]
)
def test_a_name_that_was_made_to_lead_here(door: Gateway, name: str) -> None:
    for method, path in (("GET", "/workflows"), ("POST", "/workflows/selftest/noop"), ("GET", "/odd")):
        answer = door.call(method, path, {} if method == "POST" else None, Host=name)
        assert (answer.status, answer.code) == (421, "wrong-host")
        assert not [known for known in ("127.0.0.1", "localhost", "unix:") if known in str(answer.body)]
    assert door.call("GET", "/workflows", Host=f"unix:{door.path}").code == "wrong-host"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "https://127.0.0.1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "no-cors"},
    ],
)
def test_a_page_of_another_site(door: Gateway, headers: dict[str, str]) -> None:
    for method, path in (("GET", "/workflows"), ("POST", "/workflows/selftest/noop")):
        assert door.call(method, path, {} if method == "POST" else None, **headers).code == "cross-site"


def test_what_a_form_or_a_script_of_a_page_may_send_unasked(door: Gateway) -> None:
    body = b'{"infra": "x", "params": {}}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "text/json"):
        assert door.post("/workflows/servers/create", body, Content_Type=kind).code == "media-type", kind
    answer = door.call("OPTIONS", "/workflows/servers/create", Access_Control_Request_Method="POST")
    assert answer.status == 405
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_no_answer_is_for_other_pages(door: Gateway) -> None:
    for path in ("/workflows", "/odd", "/metrics", "/openapi.json"):
        headers = door.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Server"] == "provisioning"


@pytest.mark.parametrize(
    "path",
    [
        "/workflows/../../etc/passwd",
        "/workflows/%2e%2e/%2e%2e/etc/passwd",
        "/workflows/..%2f..%2fetc%2fpasswd",
        "/workflows/01m8eancbpqn7z4fejb8jr6tcq/logs/..%2f..%2fplan",
        "/workflows/01m8eancbpqn7z4fejb8jr6tcq/logs/a%00b",
        "/workflows/01m8eancbpqn7z4fejb8jr6tcq/logs/%2fetc%2fpasswd",
        "/workflows/*/events",
        "/tasks/01m8eancbpqn7z4fejb8jr6tcq.%2e%2e%2fplan",
        "/workflows/%ff%fe",
        "//workflows",
        "/workflows/servers/..",
        "/" + "a" * 7000,
    ],
)
def test_a_path_leads_nowhere_else(door: Gateway, path: str) -> None:
    assert door.get(path).status == 404
    assert door.post(path, {}).status in (404, 405)


def test_bodies(door: Gateway) -> None:
    batch, create = "/workflows/batch", "/workflows/servers/create"
    assert door.post(batch, b" " * (64 << 10) + b"{}").code == "too-large"
    long = b"POST /workflows/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert b" 413 " in door.raw(long + b"Content-Length: 999999999999\r\nConnection: close\r\n\r\n{}")
    for text in (b"{", b"[]", b"\xff", b"null", b'{"params": 1}', b'{"x": 1}', b"[" * 20_000, b'{"infra": "\\ud800"}'):
        assert door.post(create, text).status in (400, 422), text
        assert door.post(batch, text).status in (400, 422), text
    deep = b'{"params": {"name": ' + b"[" * 5000 + b"]" * 5000 + b"}}"
    assert door.post(create, deep).status in (400, 422)
    for name in ("../x", "a; rm -rf /", "$(id)", "-x", "\u202e", "a" * 5000, "${tasks.a.result}", "\x1b[2J"):
        assert door.post(create, {"infra": name, "params": {"name": name, "plan": name, "x": name}}).status == 422, name
    assert door.get("/workflows/batch").status in (404, 405)


_HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"
_JSON = b"POST /workflows/selftest/noop" + _HEAD + b"Content-Type: application/json\r\n"
RAW = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /workflows HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET /workflows" + _HEAD + b"Host: evil.example\r\n\r\n",
    b"GET /workflows HTTP/1.1\r\nHost : localhost\r\n\r\n",
    b"GET /workflows" + _HEAD + b"X: a\x00b\r\n\r\n",
    b"GET http://evil.example/workflows HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET /workflows" + _HEAD + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
    b"GET /workflows" + _HEAD + b"X: a\r\n" * 5000 + b"\r\n",
    _JSON + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    _JSON + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}}",
    _JSON + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    _JSON + b"Content-Length: -1\r\n\r\n{}",
]


@pytest.mark.parametrize("data", RAW, ids=range(len(RAW)))
def test_what_is_no_http_is_refused_in_the_form_of_all_errors(door: Gateway, data: bytes) -> None:
    said = door.raw(data)
    status = int(said.split(b" ", 2)[1])
    assert 400 <= status < 500, said
    assert b'"success": false' in said
    assert b"Traceback" not in said


def test_an_http_1_0_call_without_a_host_is_refused(door: Gateway) -> None:
    assert b" 421 " in door.raw(b"GET /workflows HTTP/1.0\r\n\r\n")


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"nonsense"])
def test_a_body_that_is_not_coded_as_it_says(door: Gateway, coding: bytes) -> None:
    head = _JSON + b"Content-Length: 3\r\nConnection: close\r\nContent-Encoding: " + coding
    said = door.raw(head + b"\r\n\r\nabc")
    assert b" 400 " in said[:13], said
    assert b'"success": false' in said


def test_a_body_that_comes_later_and_is_not_coded_as_it_says(door: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=20) as connection:
        connection.sendall(_JSON + b"Content-Length: 3\r\nContent-Encoding: gzip\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        said = connection.recv(4096)
    assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 408 ")), said


@pytest.mark.parametrize("path", [b"/workflows", b"/"])
def test_what_nobody_can_do_may_not_be_expected(door: Gateway, path: bytes) -> None:
    said = door.raw(b"GET " + path + _HEAD + b"Connection: close\r\nExpect: nonsense\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 417 "), said
    assert b'"code": "expectation-failed"' in said
    assert b"X-Content-Type-Options: nosniff" in said
    said = door.raw(_JSON + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: 2\r\n\r\n[]")
    assert said.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 4"), said


@pytest.mark.parametrize(
    "twice", [b"Origin: http://localhost\r\nOrigin: null", b"Sec-Fetch-Site: none\r\nsec-fetch-site: cross-site"]
)
def test_whose_page_asks_is_said_once(door: Gateway, twice: bytes) -> None:
    said = door.raw(b"GET /workflows" + _HEAD + twice + b"\r\nConnection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 "), said


@pytest.mark.parametrize("infra", ["\0", "a" * 1_000, "Web", "../x", " "])
def test_an_infra_is_called_as_in_a_manifest(door: Gateway, infra: str) -> None:
    for path in ("/workflows/servers/create", "/workflows/selftest/noop"):
        assert door.post(path, {"infra": infra}).status == 422


def test_a_body_that_ends_early_is_not_submitted(door: Gateway) -> None:
    head = b"POST /workflows/selftest/noop HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", door.port)) as connection:
        connection.sendall(head + b"Content-Length: 3\r\n\r\n{}")
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(10)
        assert b" 202 " not in connection.recv(4096)


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"GET /workflows HTTP/1.1\r\nHost: local",
        _JSON + b"Content-Length: 999\r\n\r\n",
    ],
)
def test_who_is_slow_is_not_waited_for(door: Gateway, begin: bytes) -> None:
    """A byte once in a while does not help."""
    with socket.create_connection(("127.0.0.1", door.port)) as connection:
        connection.settimeout(10)
        connection.sendall(begin)
        dripping = threading.Event()

        def drip() -> None:
            while not dripping.wait(0.1):
                try:
                    connection.sendall(b"a" if begin else b"")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        begun, said = time.monotonic(), b""
        try:
            while part := connection.recv(4096):
                said += part
        except ConnectionError:
            pass
        finally:
            dripping.set()
            thread.join()
        assert time.monotonic() - begun < 8
        assert b" 20" not in said[:20]


def test_who_takes_nothing_of_an_answer_is_not_waited_for(door: Gateway) -> None:
    """The catalogue again and again, and no byte of it read."""
    call = b"GET /operations HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", door.port))
        connection.settimeout(10)
        gone = threading.Event()
        deadline = time.monotonic() + 15
        while not gone.is_set():
            assert time.monotonic() < deadline, "it is still there"
            try:
                connection.sendall(call)
                gone.wait(0.02)
            except TimeoutError:
                continue
            except OSError:
                gone.set()


def test_many_connections_take_no_room_for_ever(door: Gateway) -> None:
    held = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(120)]
    try:
        for each in held:
            each.settimeout(10)
            try:
                assert each.recv(1) == b""
            except ConnectionError:
                pass
    finally:
        for each in held:
            each.close()


def test_the_folder_is_left_as_it_was(door: Gateway) -> None:
    names = {path.name for path in Path(door.site.root / "spool").iterdir()}
    assert "metrics.prom" not in names
    assert list((door.site.root / "spool/requests").glob("*.json")) == []


# The page


def test_every_module_and_style_comes_with_the_policy_and_the_guards(door: Gateway) -> None:
    document = door.get("/")
    assert document.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
    named = re.findall(r'(?:href|src)="(page/[^"]+)"', document.body.decode())
    modules = {"states.js", *(path.name for path in STATIC.glob("*.js"))}
    for path in {*named, *(f"page/{name}" for name in modules)}:
        answer = door.get(f"/{path}")
        assert answer.status == 200, path
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == document.headers["Content-Security-Policy"]
        assert b"http://" not in answer.body.replace(b"http://www.w3.org/2000/svg", b"")
        assert door.get(f"/{path}", Host="evil.example").status == 421
        assert door.get(f"/{path}", Sec_Fetch_Site="cross-site").status == 403
    assert door.get("/page/../server.py").status == 404
    assert door.post("/", {}).status == 405


def test_a_link_from_elsewhere_opens_the_page_and_nothing_else(door: Gateway) -> None:
    followed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert door.get("/", **followed).status == 200
    assert door.get("/", **{**followed, "Sec_Fetch_Dest": "iframe"}).code == "cross-site"
    assert door.get("/", **followed, Origin="http://evil.example").code == "cross-site"
    assert door.get("/workflows", **followed).code == "cross-site"
    assert door.get("/", **followed, Host="evil.example").code == "wrong-host"
