"""Who may call the HTTP door: the spool's own user, operators as far as their grants go, and nobody else."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioning.gateway.callers import uid_of
from provisioning.gateway.refusals import MOST
from tests.gateway import Answered, Gateway, certified, grant, reachable, said_by, token_of
from tests.installation import Installation
from tests.waiting import wait_for

NOOP = {"schema": 1, "name": "x", "tasks": [{"id": "a", "operation": "selftest.noop"}]}


@contextlib.contextmanager
def connected(family: socket.AddressFamily, target: tuple[str, int]) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection over loopback: the caller's, and ours."""
    with socket.socket(socket.AF_INET6 if ":" in target[0] and "ffff" not in target[0] else socket.AF_INET) as listener:
        listener.bind((target[0].removeprefix("::ffff:"), 0))
        listener.listen()
        with socket.socket(family) as theirs:
            theirs.connect((target[0], listener.getsockname()[1]))
            ours, _ = listener.accept()
            with ours:
                yield theirs, ours


@pytest.mark.parametrize(
    ("family", "host"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::ffff:127.0.0.1")],
)
def test_the_kernel_says_whose_socket_it_is(family: socket.AddressFamily, host: str) -> None:
    with connected(family, (host, 0)) as (theirs, ours):
        assert uid_of(ours) == os.geteuid()
        theirs.shutdown(socket.SHUT_WR)
        assert uid_of(ours) == os.geteuid()


def test_a_socket_that_its_user_has_closed_is_nobodys() -> None:
    """The kernel lists it as root's: whoever sends and goes would be taken for root."""
    with connected(socket.AF_INET, ("127.0.0.1", 0)) as (theirs, ours):
        theirs.sendall(b"POST / HTTP/1.1\r\n")
        theirs.close()
        port = ours.getpeername()[1]
        listed = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()]
        assert [f[9] for f in listed if f[1].endswith(f":{port:04X}")] == ["0"], "it is still listed, with no inode"
        assert uid_of(ours) is None


LISTEN = """
import os, socket, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from provisioning.gateway.callers import uid_of
os.umask(0)
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    print("ready", flush=True)
    ours, _ = listener.accept()
    print(uid_of(ours))
"""


@pytest.mark.root
@pytest.mark.parametrize("before", [["unshare", "--user", "--map-root-user"], []])
def test_a_user_whom_a_namespace_does_not_know_is_nobody_in_it_though_the_number_is_somebodys(
    folder: Path, before: list[str]
) -> None:
    path = folder / "socket"
    command = [*before, sys.executable, "-c", LISTEN, str(path), str(Path(__file__).parents[2])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as inside:
        assert inside.stdout is not None
        assert inside.stdout.readline() == "ready\n"
        call = ["curl", "-q", "--max-time", "5", "--unix-socket", str(path), "http://here/"]
        uid = 65534 if not before else 61234
        subprocess.run(call, user=uid, group=uid, extra_groups=[], env={}, cwd="/", capture_output=True, check=False)
        assert inside.stdout.read() == f"{None if before else uid}\n"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where everybody reaches the socket."""
    with reachable() as made:
        yield made


@pytest.mark.root
@pytest.mark.nu
def test_who_has_no_grant_may_nothing(site: Installation, folder: Path) -> None:
    door = Gateway(site, folder=folder)
    for unix in (False, True):
        for method, path in (("GET", "/workflows"), ("GET", "/openapi.json"), ("GET", "/odd")):
            assert door.as_stranger(method, path, unix=unix).code == "not-granted", path
        assert door.as_stranger("POST", "/workflows/selftest/noop", {}, unix=unix).status == 403
    assert site.spool.incoming_ids() == []


@pytest.mark.root
@pytest.mark.nu
def test_operators_may_what_they_are_granted(site: Installation, folder: Path) -> None:
    theirs = site.submit([{"id": "a", "operation": "selftest.echo", "params": {"value": 1}}])
    grant(site, "selftest.noop")
    door = Gateway(site, folder=folder)
    own = door.as_stranger("POST", "/workflows/selftest/noop", {}).data["workflow_id"]
    batch = door.as_stranger("POST", "/workflows/batch", NOOP, unix=True).data["workflow_id"]
    submission = site.folder(own).submission()
    assert (submission.operator, submission.door) == ("nobody", "gateway")
    echo = door.as_stranger("POST", "/workflows/selftest/echo", {"params": {"value": 1}})
    assert (echo.status, echo.code) == (403, "not-granted")
    assert door.as_stranger("POST", "/workflows/selftest/noop", {"params": {"x": 1}}).status == 422
    seen = door.as_stranger("GET", "/workflows").data["workflows"]
    assert {row["workflow_id"] for row in seen} == {own, batch}
    for path in (theirs, theirs[:10], f"{theirs}/events", f"{theirs}/logs/a", f"{theirs}/graph", f"{theirs}/timeline"):
        assert door.as_stranger("GET", f"/workflows/{path}").status == 404, path
    assert door.as_stranger("GET", f"/tasks/{theirs}.a").status == 404
    assert door.as_stranger("POST", f"/workflows/{theirs}/cancel").status == 404
    assert door.as_stranger("POST", f"/workflows/{own}/cancel").data["asked"] == "cancel"
    site.drain()
    assert (site.state(own), site.state(batch)) == ("cancelled", "succeeded")
    assert door.as_stranger("POST", f"/workflows/{batch}/resume").code == "request-refused"
    assert door.as_stranger("GET", f"/tasks/{batch}.a").data["state"] == "succeeded"
    asked = [record for record in _audit(site) if record["event"] == "request" and "door" in record]
    assert [(each["operator"], each["verb"], each["door"]) for each in asked] == [("nobody", "cancel", "gateway")]


@pytest.mark.root
@pytest.mark.nu
def test_grants_are_asked_again_at_the_start_and_signatures_where_they_are_required(site: Installation) -> None:
    grant(site, "selftest.*")
    door = Gateway(site)
    workflow_id = door.as_stranger("POST", "/workflows/selftest/noop", {}).data["workflow_id"]
    door.process.terminate()
    door.process.wait()
    grant(site, "selftest.echo")
    site.drain()
    assert site.spool.folder_path(workflow_id) is None
    site.settings(receive_signature="required")
    door = Gateway(site)
    assert door.as_stranger("GET", f"/workflows/{workflow_id}").code == "rejected"
    (row,) = door.as_stranger("GET", "/workflows").data["workflows"]
    assert (row["workflow_id"], row["state"]) == (workflow_id, "rejected")
    unsigned = door.as_stranger("POST", "/workflows/selftest/echo", {"params": {"value": 1}})
    assert (unsigned.status, unsigned.code) == (403, "signature-missing")
    assert door.post("/workflows/selftest/noop", {}).status == 202, "the owner signs nothing"


@pytest.mark.root
@pytest.mark.nu
def test_who_is_not_let_in_is_in_the_audit_log_once(site: Installation, folder: Path) -> None:
    door = Gateway(site, folder=folder)
    for unix in (False, True, False):
        assert door.as_stranger("GET", "/workflows", unix=unix).status == 403
    assert door.get("/workflows", Authorization="Bearer wrong").status == 401
    assert door.get("/workflows", Sec_Fetch_Site="cross-site").status == 403
    assert door.get("/no-such").status == 404
    declined = [each for each in _audit(site) if each["event"] == "declined"]
    assert [(each["who"], each["code"], each["call"], each["times"]) for each in declined] == [
        ("nobody", "not-granted", "GET /workflows", 1),
        ("127.0.0.1", "unknown-token", "GET /workflows", 1),
        ("127.0.0.1", "cross-site", "GET /workflows", 1),
    ]
    door.process.terminate()
    assert door.process.wait(20) == 0
    last = _audit(site)[-1]
    assert (last["event"], last["who"], last["code"], last["times"]) == ("declined", "nobody", "not-granted", 2)


@pytest.mark.nu
def test_who_is_refused_too_often_has_to_wait_and_nobody_else(site: Installation) -> None:
    grant(site, "selftest.noop", operator="alice")
    alice = {"Authorization": f"Bearer {token_of(site, 'alice')}"}
    door = Gateway(site)
    refused, answer = _until_too_many(lambda: door.get("/workflows", Authorization="Bearer wrong"), 401)
    assert (refused >= MOST, answer.code) == (True, "too-many")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert door.get("/workflows", **alice).status == 200, "whoever may is let in from there"
    refused, _ = _until_too_many(lambda: door.get("/workflows/7zzz", **alice), 404)
    assert refused >= MOST
    accepted = 0
    while (answer := door.post("/workflows/selftest/noop", {}, **alice)).status == 202:
        accepted += 1  # a second has passed since: on a busy machine
        _until_too_many(lambda: door.get("/workflows/7zzz", **alice), 404)
    assert (answer.status, answer.code) == (429, "too-many")
    assert len(site.spool.incoming_ids()) == accepted
    for _ in range(MOST + 1):
        assert door.get("/workflows/7zzz").status == 404, "the owner's mistakes are no attack"
    wait_for(lambda: door.get("/workflows", **alice).status == 200, what="the end of the wait")
    assert len([each for each in _audit(site) if each["event"] == "declined"]) == 1


def _until_too_many(call: Callable[[], Answered], status: int) -> tuple[int, Answered]:
    """Call until it has to wait: how often it was refused before that, as a second gives back one, and the answer."""
    for refused in range(3 * MOST):
        answer = call()
        if answer.status == 429:
            return refused, answer
        assert answer.status == status
    raise AssertionError("it never has to wait")


def _audit(site: Installation) -> list[dict[str, object]]:
    lines = [line for path in sorted((site.root / "spool/audit").iterdir()) for line in path.read_text().splitlines()]
    return [record for line in lines if isinstance(record := json.loads(line), dict) and "event" in record]


# From elsewhere


@pytest.mark.nu
def test_elsewhere_it_listens_only_with_tls_and_tokens(site: Installation) -> None:
    place = ("serve", "--listen", "0.0.0.0:0")
    assert "without TLS" in said_by(site, *place, code=5)
    certified(site)
    site.settings(paths_tokens=site.root / "tokens.toml")
    said = said_by(site, *place, code=5)
    assert "provisioning authority token" in said


@pytest.mark.nu
def test_a_token_says_who_calls(site: Installation) -> None:
    grant(site, "selftest.noop", operator="alice")
    alice, certificate = token_of(site, "alice"), certified(site)
    door = Gateway(site, "--listen", "0.0.0.0:0")
    port = int(door.said.split("https://0.0.0.0:")[1].split()[0])
    trusted = ssl.create_default_context(cafile=str(certificate))

    def call(path: str, body: object = None, **headers: str) -> Answered:
        data = json.dumps(body).encode() if body is not None else None
        headers["Content-Type"] = "application/json"
        request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, context=trusted, timeout=20) as answer:
                return Answered(answer.status, {}, json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            with error:
                return Answered(error.code, dict(error.headers), json.loads(error.read()))

    ours = site.submit([{"id": "a", "operation": "selftest.noop"}, {"id": "b", "operation": "selftest.echo",
                        "params": {"value": 1}}])  # fmt: skip
    made = call("/workflows/selftest/noop", {}, Authorization=f"Bearer {alice}").data["workflow_id"]
    assert site.folder(made).submission().operator == "alice"
    assert call(f"/workflows/{ours}", Authorization=f"Bearer {alice}").status == 404
    for verb in ("resume", "retry", "rollback"):
        answer = call(f"/workflows/{made}/{verb}", {}, Authorization=f"Bearer {alice}")
        assert (answer.code, f"there is nothing to {verb}" in str(answer.body)) == ("request-refused", True), answer
    for wrong in (f"Bearer {alice}x", "Bearer ", "Basic YTpi", f"Bearer {alice[:-1]}"):
        answer = call("/workflows", Authorization=wrong)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), wrong
    # A wrong token is refused where none would be needed, too.
    assert door.get("/workflows", Authorization="Bearer no").status == 401
    assert door.get(f"/workflows/{ours}", Authorization=f"Bearer {alice}").status == 404
    (site.root / "tokens.toml").chmod(0o644)
    assert door.get("/workflows", Authorization=f"Bearer {alice}").status == 503, "others may read the file"
    (site.root / "tokens.toml").write_text("")
    (site.root / "tokens.toml").chmod(0o600)
    assert call("/workflows", Authorization=f"Bearer {alice}").status == 401, "taken back at once"
