"""The HTTP door as programs use it: the platform's own call, every route, and what it says of each workflow."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from provisioning.clock import now
from provisioning.core.catalogue import singular
from provisioning.views.report import report_of
from provisioning.views.report_html import report_html
from tests.gateway import Gateway
from tests.installation import Gate, Installation, find_nu
from tests.waiting import wait_for

pytestmark = pytest.mark.nu


@pytest.fixture
def door(site: Installation) -> Gateway:
    return Gateway(site)


def nu(script: str) -> str:
    """What a script of Nushell prints."""
    done = subprocess.run([find_nu(), "-n", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_platforms_own_call(site: Installation, door: Gateway) -> None:
    """Nushell's `http post` of that very record; and the same to both addresses that localhost may be."""
    url = f"http://localhost:{door.port}/workflows/servers/create"
    said = [
        json.loads(nu(f"{call} | to json"))
        for call in (
            f'http post --content-type application/json {url} {{infra: "wuji", params: {{}}}}',
            f'{{infra: "wuji", params: {{}}}} | to json | http post {url}',
        )
    ]
    body = {"infra": "wuji", "params": {}}
    said += [door.call("POST", "/workflows/servers/create", body, host=host).body for host in ("127.0.0.1", "::1")]
    for answer in said:
        assert answer["success"] is True
        workflow_id = answer["data"]["workflow_id"]
        submission = site.folder(workflow_id).submission()
        assert (submission.infra, submission.door, submission.tasks) == ("default", "gateway", 1)
        (task,) = json.loads((site.spool.incoming / workflow_id / "manifest.json").read_text())["tasks"]
        assert (task["operation"], task["params"]) == ("servers.create", {"name": "wuji"})


def test_every_operation_is_taken_in_plural_and_singular(site: Installation, door: Gateway) -> None:
    paths = door.get("/openapi.json").body["paths"]
    for operation in site.catalogue.operations.values():
        assert "post" in paths[f"/workflows/{operation.domain}/{operation.verb}"]
        for domain in {operation.domain, singular(operation.domain)}:
            answer = door.post(f"/workflows/{domain}/{operation.verb}", {"params": {"no-such-param": 1}})
            assert (answer.status, answer.code) == (422, "invalid-manifest"), (operation.name, answer)
    assert door.post("/workflows/servers/destroy", {}).status == 404
    assert site.spool.incoming_ids() == []


def test_what_infra_means(site: Installation, door: Gateway) -> None:
    (site.root / "infra" / "demo").mkdir(parents=True)

    def asked(**body: object) -> tuple[str, dict[str, object]]:
        workflow_id = door.post("/workflows/servers/create", body).data["workflow_id"]
        written = json.loads((site.spool.incoming / workflow_id / "manifest.json").read_text())
        return written.get("infra", "default"), written["tasks"][0]["params"]

    assert asked(infra="wuji") == ("default", {"name": "wuji"})
    assert asked(infra="default", params={"name": "a"}) == ("default", {"name": "a", "infra": "default"})
    assert asked(infra="example", params={"name": "a"}) == ("example", {"name": "a", "infra": "example"})
    assert asked(params={"name": "a", "infra": "example"}) == ("example", {"name": "a", "infra": "example"})
    contrary = {"infra": "example", "params": {"name": "a", "infra": "default"}}
    assert door.post("/workflows/servers/create", contrary).status == 422
    unknown = door.post("/workflows/servers/create", {"infra": "nowhere", "params": {"name": "a"}})
    assert unknown.status == 422
    assert "nowhere" in json.dumps(unknown.body)


def test_a_workflow_from_its_submission_to_its_end(site: Installation, door: Gateway) -> None:
    assert (answer := door.get("/health")).status == 503
    assert answer.code == "unhealthy"
    assert door.get("/metrics").status == 404
    site.settings(metrics_seconds=0.2)
    site.orchestrator()
    assert door.get("/health").data == {"healthy": True}
    tasks = [
        {"id": "a", "operation": "commands.run", "params": {"argv": ["printf", "one\ntwo\n"]}},
        {"id": "b", "operation": "selftest.echo", "params": {"value": 7}, "depends_on": ["a"]},
    ]
    workflow_id = door.post("/workflows/batch", {"schema": 1, "name": "trial", "tasks": tasks}).data["workflow_id"]
    told = list(door.events(workflow_id))
    assert told[-1][1:] == ("end", {"state": "succeeded"})
    assert {each[2].get("task_id") for each in told} >= {"a", "b"}
    page = door.get(f"/workflows/{workflow_id}").data
    assert (page["state"], page["counts"]["succeeded"], page["tasks"][1]["result"]) == ("succeeded", 2, 7)
    assert door.get(f"/workflows/{workflow_id[:20]}?tasks=all").data == page
    assert door.get(f"/tasks/{workflow_id}.b").data["result"] == 7
    assert door.get(f"/tasks/{workflow_id}.c").status == door.get(f"/tasks/{workflow_id}").status == 404
    head = door.call("HEAD", f"/workflows/{workflow_id}")
    assert (head.status, head.body, int(head.headers["Content-Length"]) > 100) == (200, b"", True)
    log = door.get(f"/workflows/{workflow_id}/logs/a")
    assert (log.body, log.headers["Next-Offset"], log.headers["Attempt"]) == (b"one\ntwo\n", "8", "1")
    assert door.get(f"/workflows/{workflow_id}/logs/a?offset=4").body == b"two\n"
    last = door.get(f"/workflows/{workflow_id}/logs/a?lines=1")
    assert (last.body, last.headers["Next-Offset"]) == (b"two\n", "8")
    assert door.get(f"/workflows/{workflow_id}/logs/a?attempt=2").status == 404
    assert door.get(f"/workflows/{workflow_id}/logs/c").status == 404
    wait_for(lambda: door.get("/metrics").status == 200, what="the metrics")
    assert b"provisioning_slots" in door.get("/metrics").body


def test_a_reader_of_events_goes_on_where_it_was(site: Installation, door: Gateway) -> None:
    workflow_id = site.run([{"id": "a", "operation": "selftest.noop"}, {"id": "b", "operation": "selftest.noop"}])
    told = list(door.events(workflow_id))
    assert len(told) > 4
    for number in (0, 2, len(told) - 3):
        assert list(door.events(workflow_id, told[number][0])) == told[number + 1 :]
    last = told[-2][0]
    assert door.get(f"/workflows/{workflow_id}/events", Last_Event_ID=last).status == 204  # it need not come again
    middle = str(int(told[1][0]) - 1)
    for strange in (middle, "999999999"):  # of no line's end: from the beginning
        assert list(door.events(workflow_id, strange)) == told
    assert door.get(f"/workflows/{workflow_id}/events", Last_Event_ID="x").status == 400


def test_events_of_what_waits_come_once_it_is_claimed(site: Installation, door: Gateway) -> None:
    workflow_id = site.submit([{"id": "a", "operation": "selftest.noop"}])
    stream = door.events(workflow_id)
    site.start("orchestrator", "run", "--until-empty")
    assert next(stream)[2]["event"]
    assert list(stream)[-1][1] == "end"


def test_a_reader_may_begin_now(site: Installation, door: Gateway, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    tasks: list[dict[str, Any]] = [{"id": "a", "operation": "selftest.noop"}]
    tasks.append({"id": "b", "operation": "trial.again", "params": {"script": gate.script}, "depends_on": ["a"]})
    workflow_id = site.submit(tasks)
    site.orchestrator()
    gate.reached()
    told = site.folder(workflow_id).path / "events.jsonl"
    wait_for(lambda: b'"b"' in told.read_bytes(), what="the start of b")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", door.port, timeout=60)) as connection:
        connection.request("GET", f"/workflows/{workflow_id}/events?from=now")
        response = connection.getresponse()
        gate.open()
        lines = response.read().decode().splitlines()
    later = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert later[-1] == {"state": "succeeded"}
    assert {each["task_id"] for each in later if "task_id" in each} == {"b"}
    assert door.get(f"/workflows/{workflow_id}/events?from=yesterday").status == 422
    gate.close()


def test_pictures_are_those_of_reports(site: Installation, door: Gateway) -> None:
    workflow_id = site.submit([{"id": "a", "operation": "selftest.noop"},
                               {"id": "b", "operation": "selftest.noop", "depends_on": ["a"]}])  # fmt: skip
    for name in ("graph", "timeline"):
        assert door.get(f"/workflows/{workflow_id}/{name}").code == "not-found"
    site.drain()
    report = report_html(report_of(site.folder(workflow_id), now()))
    for name in ("graph", "timeline"):
        answer = door.get(f"/workflows/{workflow_id}/{name}")
        assert answer.headers["Content-Type"].startswith("image/svg+xml")
        assert answer.body.decode() in report
        assert answer.headers["Note"] in report
        assert ElementTree.fromstring(answer.body).tag == "{http://www.w3.org/2000/svg}svg"


def test_pictures_change_with_the_workflow(site: Installation, door: Gateway, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    workflow_id = site.submit([{"id": "a", "operation": "trial.again", "params": {"script": gate.script}}])
    site.orchestrator()
    gate.reached()

    def drawn() -> bytes:
        return bytes(door.get(f"/workflows/{workflow_id}/graph").body)

    wait_for(lambda: b"node running" in drawn(), what="a picture of what runs")
    gate.open()
    site.wait_ended(workflow_id)
    assert b"node succeeded" in drawn()  # at once: nothing comes later that would bring another look
    site.ask("retry", workflow_id, "a")
    gate.reached(2)
    wait_for(lambda: b"node running" in drawn(), what="a picture of what runs again")
    gate.open(2)
    gate.close()


def test_lists_are_filtered(site: Installation, door: Gateway) -> None:
    task = [{"id": "a", "operation": "selftest.noop"}]
    one, two = site.submit(task, name="nightly-web", infra="demo"), site.submit(task, name="Site.WEB")
    own = door.post("/workflows/batch", {"schema": 1, "name": "own", "tasks": task}).data["workflow_id"]
    me = door.get("/caller").data
    assert me["own"] is True
    for query, wanted in {
        "name=web": [two, one],
        f"name={one}": [one],
        f"operator={me['operator']}": [own],
        "operator=tester&name=night": [one],
        "infra=demo": [one],
        "name=%3Cscript%3E": [],
    }.items():
        assert [row["workflow_id"] for row in door.get(f"/workflows?{query}").data["workflows"]] == wanted, query
    for wrong in ("name=a&name=b", "name=%00", f"name={'x' * 129}"):
        assert door.get(f"/workflows?{wrong}").status == 422, wrong


def test_lists_come_in_parts(site: Installation, door: Gateway) -> None:
    task = {"id": "a", "operation": "selftest.noop"}
    ids = [site.submit([task, {**task, "id": "b"}]) for _ in range(3)]
    site.drain()
    first = door.get("/workflows?limit=2").data
    assert [row["workflow_id"] for row in first["workflows"]] == ids[:0:-1]
    assert first["more"] is True
    rest = door.get("/workflows?limit=2&offset=2").data
    assert [row["workflow_id"] for row in rest["workflows"]] == ids[:1]
    assert rest["more"] is False
    assert door.get("/workflows?state=failed&state=queued").data["workflows"] == []
    found = door.get("/tasks?offset=1&limit=3").data["tasks"]
    assert [each["id"] for each in found] == [f"{ids[2]}.b", f"{ids[1]}.a", f"{ids[1]}.b"]
    assert len(door.get(f"/tasks?workflow={ids[0]}&state=succeeded").data["tasks"]) == 2
    for wrong in ("limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "offset=-1", "state=odd", "colour=red"):
        assert door.get(f"/workflows?{wrong}").status == 422, wrong


def test_requests(site: Installation, door: Gateway) -> None:
    workflow_id = site.submit([{"id": "a", "operation": "selftest.fail", "params": {"code": "x", "message": "no"}}])
    answer = door.post(f"/workflows/{workflow_id}/pause").data
    assert answer == {"workflow_id": workflow_id, "asked": "pause", "queued": False}
    assert site.state(workflow_id) == "paused"
    assert door.post(f"/workflows/{workflow_id}/pause").status == 409
    door.post(f"/workflows/{workflow_id}/resume")
    site.drain()
    assert site.state(workflow_id) == "failed"
    assert door.post(f"/workflows/{workflow_id}/retry", {"tasks": ["b"]}).status == 404
    assert door.post(f"/workflows/{workflow_id}/cancel", {"tasks": ["a"]}).status == 422
    assert door.post(f"/workflows/{workflow_id}/retry", {"preserve": ["a"]}).status == 422
    door.post(f"/workflows/{workflow_id}/retry", {"tasks": ["a"]})
    door.post(f"/workflows/{workflow_id}/cancel")
    assert site.state(workflow_id) == "cancelled"
    door.post(f"/workflows/{workflow_id}/rollback", {"preserve": ["a"]})
    asked = [each.verb for each in site.workflow(workflow_id).applied]
    assert asked == ["pause", "resume", "retry", "cancel", "rollback"]
    assert door.post(f"/workflows/{workflow_id}/retry", Idempotency_Key="k").code == "bad-key"
    missing = "01m8eancbpqn7z4fejb8jr6tcq"
    assert door.post(f"/workflows/{missing}/cancel").code == "not-found"


def test_a_key_makes_one_workflow_of_many_posts(site: Installation, door: Gateway) -> None:
    body = {"params": {"value": 1}}
    ids = {door.post("/workflows/selftest/echo", body, Idempotency_Key=key).data["workflow_id"] for key in ("k", '"k"')}
    assert ids == set(site.spool.incoming_ids())
    other = door.post("/workflows/selftest/echo", {"params": {"value": 2}}, Idempotency_Key="k")
    assert other.status == 409
    assert door.post("/workflows/selftest/echo", body, Idempotency_Key="../k").code == "bad-key"
    toml = b'schema = 1\nname = "x"\n[[tasks]]\nid = "a"\noperation = "selftest.noop"\n'
    given = {"Content_Type": "application/toml", "Idempotency_Key": "t"}
    assert len({door.post("/workflows/batch", toml, **given).data["workflow_id"] for _ in range(2)}) == 1
    wrong = door.post("/workflows/batch", toml.replace(b"noop", b"nope"), **{**given, "Idempotency_Key": "u"})
    assert wrong.body["error"]["problems"][0]["line"] == 5


def test_it_stops_at_once_though_somebody_watches(site: Installation, door: Gateway) -> None:
    workflow_id = site.submit([{"id": "a", "operation": "selftest.noop"}])
    with socket.create_connection(("127.0.0.1", door.port)) as watching:
        watching.sendall(b"GET /workflows/%s/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % workflow_id.encode())
        assert watching.recv(12) == b"HTTP/1.1 200"
        begin = time.monotonic()
        door.process.terminate()
        assert door.process.wait(20) == 0
        assert time.monotonic() - begin < 15
    assert not door.path.exists()


def test_a_second_one_says_what_is_in_its_way(site: Installation, door: Gateway) -> None:
    for place in (f"localhost:{door.port}", f"unix:{door.path}"):
        before = len(list(site.root.glob("said.*")))
        assert site.start("serve", "--listen", place).wait(30) in (5, 6)
        said = (site.root / f"said.{before}").read_text()
        assert "hint:" in said
        assert "Traceback" not in said
    door.process.kill()
    door.process.wait()
    assert Gateway(site).get("/workflows").status == 200, "over the socket that was left"
