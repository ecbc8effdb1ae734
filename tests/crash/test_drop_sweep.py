"""The drop door, killed before each call by which it changes a file, and again while it recovers."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioning.storage import drop
from provisioning.storage.audit import Audit
from provisioning.storage.check import check
from tests.doors import Doors, named
from tests.simulation.calls import Calls, Crash

NAMES = ("good.toml", "sum.json", "named.toml", "bad.toml", "link.toml", "cancel.request.json")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def prepared(root: Path, patched: pytest.MonkeyPatch) -> tuple[Doors, str]:
    """A door before which lies one of each; and the workflow that the request is about."""
    root.mkdir()
    doors = Doors(root, patched)
    doors.put("before.toml")
    doors.work()
    workflow_id = doors.receipt("before.toml").workflow_id
    doors.put("good.toml")
    doors.put("sum.json", b'{"schema": 1, "name": "j", "tasks": [{"id": "a", "operation": "selftest.noop"}]}')
    doors.put("named.toml", named("nightly"))
    doors.put("bad.toml", b"schema = 1\n")
    os.symlink("/etc/passwd", doors.folder / "link.toml")
    doors.ask("cancel", verb="cancel", workflow_id=workflow_id)
    doors.die()
    return doors, workflow_id


def hold(doors: Doors, workflow_id: str) -> None:
    """Nothing lost, nothing doubled, everything said."""
    assert doors.left() == []
    codes = {name: (doors.receipt(name).answer, doors.code(name)) for name in NAMES}
    assert codes == {
        "good.toml": ("accepted", ""),
        "sum.json": ("accepted", ""),
        "named.toml": ("accepted", ""),
        "bad.toml": ("rejected", "missing-key"),
        "link.toml": ("rejected", "symlink"),
        "cancel.request.json": ("accepted", ""),
    }
    accepted = {doors.receipt(name).workflow_id for name in ("good.toml", "sum.json", "named.toml")}
    assert sorted(accepted | {workflow_id}) == doors.spool.incoming_ids()
    assert len(accepted) == 3
    assert len(os.listdir(doors.spool.rejected)) == 2
    assert [request.verb for _, request in doors.spool.requests_of(workflow_id)] == ["cancel"]
    assert drop.takings(doors.spool) == []
    assert {answer.name for answer in drop.load_answers(doors.spool)[0].values()} == {
        "before.toml",
        "good.toml",
        "sum.json",
        "named.toml",
    }
    events = doors.events()
    for name in NAMES:
        event = {"bad.toml": "rejected", "link.toml": "rejected", "cancel.request.json": "request"}.get(
            name, "accepted"
        )
        assert (events["taken", name], events[event, name]) == (1, 1), name
    assert Audit(doors.root).verify()[0] == []
    assert check(doors.root) == []


def run_to(doors: Doors, calls: Calls, number: int) -> bool:
    """Work the door until it has made so many calls, then let it die; whether it came so far."""

    def before(_: str) -> None:
        if calls.count == number:
            raise Crash

    calls.count, calls.before = 0, before
    try:
        with calls.life():
            doors.work()
        return False
    except Crash:
        return True
    finally:
        calls.before = lambda name: None
        doors.die()


def points(root: Path, patched: pytest.MonkeyPatch, calls: Calls) -> int:
    """How many calls an undisturbed run makes."""
    doors, workflow_id = prepared(root, patched)
    assert not run_to(doors, calls, 0)
    made = calls.count
    doors.work()
    hold(doors, workflow_id)
    doors.close()
    return made


def numbers(made: int, every: int) -> Iterator[int]:
    yield from range(1, made + 1, every)


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.long), 37])
def test_a_kill_at_each_call_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Calls, every: int
) -> None:
    made = points(tmp_path / "undisturbed", monkeypatch, calls)
    assert made > 200
    for number in numbers(made, every):
        doors, workflow_id = prepared(tmp_path / f"at-{number}", monkeypatch)
        assert run_to(doors, calls, number), number
        doors.work()
        hold(doors, workflow_id)
        doors.close()


@pytest.mark.parametrize("count", [pytest.param(300, marks=pytest.mark.long), 2])
def test_a_second_kill_in_the_recovery_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Calls, count: int
) -> None:
    seed = int(os.environ.get("PROVISIONING_SEED", "0")) or random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown where it fails: PROVISIONING_SEED makes the same kills again
    dice = random.Random(seed)
    made = points(tmp_path / "undisturbed", monkeypatch, calls)
    for run in range(count):
        doors, workflow_id = prepared(tmp_path / f"run-{run}", monkeypatch)
        assert run_to(doors, calls, dice.randint(1, made))
        while run_to(doors, calls, dice.randint(1, made)):
            pass
        doors.work()
        hold(doors, workflow_id)
        doors.close()
