"""The operations `checks.*`, between two tasks: they look until all is well, or fail with what is not."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.installation import Installation

pytestmark = pytest.mark.nu


class Site(http.server.BaseHTTPRequestHandler):
    """Answers 503 twice, then 200."""

    asked = 0

    def do_GET(self) -> None:
        Site.asked += 1
        self.send_response(200 if Site.asked > 2 else 503)
        self.end_headers()
        self.wfile.write(b"up and well")

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server on loopback."""
    Site.asked = 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_gates_between_tasks(site: Installation, port: int) -> None:
    quick = {"every": "20ms", "within": "20sec"}

    def check(kind: str, **params: Any) -> dict[str, Any]:
        return {"id": kind, "operation": f"checks.{kind}", "params": {**quick, **params}}

    late = f"test -e {site.root}/late || {{ touch {site.root}/late; exit 1; }}"
    tasks = [
        site.mark("before"),
        {**check("http", url=f"http://127.0.0.1:{port}/", contains="well"), "depends_on": ["before"]},
        check("tcp", host="127.0.0.1", port=port),
        check("command", argv=["sh", "-c", late]),
        {**check("file", path=str(site.marks), contains="before")},
        site.mark("behind", depends_on=["http", "tcp", "command", "file"]),
    ]
    workflow_id = site.run(tasks)
    assert site.state(workflow_id) == "succeeded", site.said()
    looks = {name: site.outcome(workflow_id, name).result["looks"] for name in ("http", "command")}
    assert looks["http"] == 3
    assert looks["command"] == 2


def test_what_never_becomes_well_fails_with_what_is_in_the_way(site: Installation) -> None:
    path = str(site.root / "never")
    task = {"id": "file", "operation": "checks.file", "params": {"path": path, "within": "50ms", "every": "20ms"}}
    workflow_id = site.run([task, site.mark("behind", depends_on=["file"])])
    error = site.outcome(workflow_id, "file").error
    assert error is not None
    assert error.code == "provisioning::checks::unhealthy"
    assert "it is not there" in error.msg
    assert site.mark_lines() == []
