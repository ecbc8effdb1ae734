"""Who may run what: what no grant covers is denied, a manifest as a whole."""

from __future__ import annotations

from typing import Any

import pytest

from provisioning.core import authority
from provisioning.core.authority import Authority, Grant
from provisioning.core.catalogue import Operation
from provisioning.core.workflow import Task, Undo
from provisioning.errors import Invalid

OPERATIONS = {
    "servers.create": Operation("servers.create", "c", "", "", (), None, undo="servers.delete"),
    "servers.delete": Operation("servers.delete", "d", "", "", (), None),
}
GRANTS = Authority((Grant(("alice",), ("servers.*",), ("demo",), {"plan": "1x*", "cores": 2}, ("up-*",)),))
GOOD: dict[str, Any] = {"plan": "1xCPU", "cores": 2}


def may(operator: str = "alice", operation: str = "servers.create", infra: str = "demo", **params: Any) -> bool:
    return GRANTS.refusal(operator, operation, infra, {**GOOD, **params}) == ""


def test_what_a_grant_covers() -> None:
    assert may()
    assert may(plan="1xCPU-1GB", other=[1])
    assert may(token={"credential": "up-token"})


@pytest.mark.parametrize(
    "asked",
    [
        {"operator": "bob"},
        {"operator": "alice2"},
        {"operation": "taskservs.install"},
        {"infra": "default"},
        {"plan": "2xCPU"},
        {"plan": "${tasks.x.result.plan}"},
        {"plan": "1x${tasks.x.result.plan}"},
        {"plan": None},
        {"cores": "2"},
        {"cores": True},
        {"token": {"credential": "other-token"}},
    ],
)
def test_what_none_covers(asked: dict[str, Any]) -> None:
    assert not may(**asked)


def test_a_pinned_param_must_be_there() -> None:
    assert GRANTS.refusal("alice", "servers.create", "demo", {"cores": 2}) != ""
    assert Authority().refusal("alice", "servers.create", "demo", {}) != ""


def test_one_task_refuses_the_manifest() -> None:
    tasks = [Task("a", "servers.create", params=GOOD), Task("b", "taskservs.install")]
    (problem,) = GRANTS.refusals("alice", "demo", tasks, OPERATIONS)
    assert (problem.code, problem.field) == ("not-granted", "tasks.b")


def test_an_undo_of_ones_own_needs_a_grant_too() -> None:
    own = Task("a", "servers.create", params=GOOD, undo=Undo("servers.delete"))
    assert GRANTS.refusals("alice", "demo", [own], OPERATIONS) == []
    for undo in (Undo("commands.run", {"argv": ["x"]}), Undo("commands.run"), Undo("servers.delete", {"name": "x"})):
        other = Task("a", "servers.create", params=GOOD, undo=undo)
        assert len(GRANTS.refusals("alice", "demo", [other], OPERATIONS)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "[[grant]]",
        '[[grant]]\noperators = ["a"]\n',
        '[[grant]]\noperators = "a"\noperations = ["b"]\n',
        '[[grant]]\noperators = []\noperations = ["b"]\n',
        '[[grant]]\noperators = ["a"]\noperations = ["b"]\ninfra = ["c"]\n',
        '[[grant]]\noperators = ["a"]\noperations = ["b"]\nparams = { x = nan }\n',
        '[[grants]]\noperators = ["a"]\noperations = ["b"]\n',
        "grant = 1\n",
        "grant = [1]\n",
        "= x",
    ],
)
def test_a_broken_file_grants_nothing(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        authority.read(text, "authority.toml")
    assert caught.value.problems[0].code == "bad-authority"


def test_a_file_is_read() -> None:
    text = '[[grant]]\noperators = ["a"]\noperations = ["b.*"]\nparams = { x = 1 }\n'
    assert authority.read(text, "f").grant == (Grant(("a",), ("b.*",), ("*",), {"x": 1}),)
    assert authority.read("", "f") == Authority()
