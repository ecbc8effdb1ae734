"""What operators with a token get to know, and what they do to each other: nothing."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from provisioning.clock import new_ulid
from provisioning.gateway.refusals import MOST
from tests.gateway import Gateway, grant, token_of
from tests.installation import Installation

pytestmark = pytest.mark.nu

MISSING = new_ulid()


def bearer(site: Installation, operator: str) -> dict[str, str]:
    """The header by which this operator calls."""
    return {"Authorization": f"Bearer {token_of(site, operator)}"}


def test_a_token_without_a_grant_opens_nothing(site: Installation) -> None:
    grant(site, "selftest.noop", operator="alice")
    alice, mallory = bearer(site, "alice"), bearer(site, "mallory")
    door = Gateway(site)
    for path in ("/caller", "/metrics", "/operations", "/openapi.json", "/workflows", "/health", "/odd"):
        answer = door.get(path, **mallory)
        assert (answer.status, answer.code) == (403, "not-granted"), path
    assert door.post("/workflows/selftest/noop", {}, **mallory).code == "not-granted"
    assert door.get("/caller", **alice).data == {"operator": "alice", "own": False}
    assert door.get("/", **mallory).status == 200, "the page is everybody's"


def test_whose_a_workflow_is_and_whether_there_is_one_is_said_the_same(site: Installation) -> None:
    grant(site, "selftest.noop", operator="alice")
    alice = bearer(site, "alice")
    theirs = site.submit([{"id": "a", "operation": "selftest.echo", "params": {"value": 1}}])
    door = Gateway(site)

    def said(workflow_id: str) -> list[tuple[int, Any]]:
        one = f"/workflows/{workflow_id}"
        paths = [one, f"/tasks/{workflow_id}.a", f"/tasks?workflow={workflow_id}"]
        paths += [f"{one}/{part}" for part in ("events", "logs/a", "graph", "timeline")]
        answers = [door.get(path, **alice) for path in paths]
        answers += [door.post(f"{one}/{verb}", {}, **alice) for verb in ("cancel", "retry", "rollback", "pause")]
        assert str(site.root) not in str(answers)
        return [(answer.status, str(answer.body).replace(workflow_id, "ID")) for answer in answers]

    assert said(theirs) == said(MISSING)
    assert {status for status, _ in said(theirs)} == {404}


def test_a_key_is_its_operators_own(site: Installation) -> None:
    grant(site, "selftest.noop", operator="*")
    alice, bob = bearer(site, "alice"), bearer(site, "bob")
    door = Gateway(site)

    def submitted(**headers: str) -> str:
        return str(door.post("/workflows/selftest/noop", {}, Idempotency_Key="nightly", **headers).data["workflow_id"])

    made = [submitted(**who) for who in (alice, bob, {})]
    assert len(set(made)) == 3, "nobody has taken it from another, or can see that it is taken"
    assert [submitted(**who) for who in (alice, bob, {})] == made
    assert [site.folder(each).submission().operator for each in made[:2]] == ["alice", "bob"]
    assert site.folder(made[2]).submission().id == "nightly", "the owner's is the id itself, as by the command line"
    batch = {"schema": 1, "name": "x", "id": "nightly", "tasks": [{"id": "a", "operation": "selftest.noop"}]}
    assert door.post("/workflows/batch", batch, **alice).status == 409, "an id of a manifest is one for all"
    assert door.post("/workflows/selftest/noop", {"infra": "demo"}, Idempotency_Key="nightly", **alice).status == 409
    hers = {**batch, "id": "hers"}
    assert door.post("/workflows/batch", hers, **alice).status == 202
    assert "of alice, not of" in door.post("/workflows/batch", hers).body["error"]["message"]


def test_who_goes_before_the_answer_is_nobody_who_was_not_let_in(site: Installation) -> None:
    door = Gateway(site)
    for _ in range(MOST + 10):
        with socket.create_connection(("127.0.0.1", door.port)) as gone:
            gone.sendall(b"GET /workflows HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert door.get("/workflows", Sec_Fetch_Site="cross-site").status == 403, "not 429: nothing was counted"
    door.process.terminate()
    assert door.process.wait(30) == 0
    lines = [line for path in (site.root / "spool/audit").iterdir() for line in path.read_text().splitlines()]
    assert [line for line in lines if "declined" in line and "cross-site" not in line] == []
