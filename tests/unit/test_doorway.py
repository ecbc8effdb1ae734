"""The drop door, one rule at a time: what waits and for what, what is taken over, what is refused, what is asked."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioning.clock import boot_id, boottime, new_ulid, now
from provisioning.core.drop import Sight
from provisioning.core.proof import seal
from provisioning.core.scheduler import Now
from provisioning.orchestrator import doorway
from provisioning.orchestrator.candidates import candidates
from provisioning.storage import foreign
from tests.doors import GOOD, OWN, Doors, named


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doors]:
    made = Doors(tmp_path, monkeypatch)
    yield made
    made.close()


def test_a_bare_file_waits_and_says_for_what(doors: Doors) -> None:
    path = doors.put("m.toml", proof="none")
    doors.work()
    receipt = doors.receipt("m.toml")
    assert (receipt.answer, doors.code("m.toml"), doors.left()) == ("waiting", "unproved", ["m.toml"])
    assert receipt.reason is not None
    assert "sha256sum m.toml" in receipt.reason.hint
    path.write_bytes(seal(GOOD))
    doors.work()
    assert (doors.receipt("m.toml").answer, doors.left()) == ("accepted", [])


def test_a_bare_file_is_taken_where_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doors = Doors(tmp_path, monkeypatch, trust_unsealed=True)
    doors.put("m.toml", proof="none")
    doors.put("changed.toml").write_bytes(seal(GOOD).replace(b"x", b"y"))
    doors.work()
    assert doors.receipt("m.toml").answer == "accepted"
    assert doors.code("changed.toml") == "unmatched"  # what says that it is something else is believed
    doors.close()


def test_what_is_open_for_writing_waits(doors: Doors) -> None:
    path = doors.put("m.toml")
    with open(path, "r+b"):
        doors.work()
        assert (doors.receipt("m.toml").answer, doors.code("m.toml")) == ("waiting", "in-use")
    doors.work()
    assert doors.receipt("m.toml").answer == "accepted"


def test_an_overwrite_that_begins_meanwhile_is_another_drop(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens the file while it is taken over has to wait, and then finds it where it was."""
    path = doors.put("m.toml")
    with monkeypatch.context() as within:
        within.setattr(foreign.Opened, "is_wanted", lambda _: True)
        doors.work()
    first = doors.receipt("m.toml").workflow_id
    assert doors.left() == ["m.toml"]
    path.write_bytes(seal(named("second")))
    doors.work()
    assert doors.left() == []
    assert sorted(doors.spool.incoming_ids()) == sorted({first, doors.receipt("m.toml").workflow_id})


def test_what_takes_its_place_meanwhile_is_not_lost(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    path = doors.put("m.toml")
    original = foreign.take_away

    def replaced(*arguments: object) -> object:
        new = doors.folder / ".new"
        new.write_bytes(seal(named("second")))
        new.chmod(0o600)
        new.rename(path)
        return original(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as within:
        within.setattr(foreign, "take_away", replaced)
        doors.work()
        within.undo()
    doors.work()
    assert (doors.left(), len(doors.spool.incoming_ids())) == ([], 2)


@pytest.mark.parametrize("step", ["take_away", "settle_away"])
@pytest.mark.parametrize("name", ["m.toml", "m.json"])
def test_times_and_modes_that_are_set_meanwhile_make_no_other_drop(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, step: str, name: str
) -> None:
    """As rsync --inplace and scp -p do once all is written: by the name, when nobody has it open any more."""
    data = (
        GOOD
        if name == "m.toml"
        else b'{"schema": 1, "name": "j", "tasks": [{"id": "a", "operation": "selftest.noop"}]}'
    )
    path = doors.put(name, data)

    def mark() -> None:
        found = _either(doors, path)
        os.utime(found, (1, 1))
        found.chmod(0o644)

    meanwhile = _before(monkeypatch, step, mark)
    doors.work()
    doors.work()
    assert meanwhile
    assert (doors.left(), len(doors.spool.incoming_ids())) == ([], 1)


@pytest.mark.parametrize("step", ["take_away", "settle_away"])
def test_bytes_that_are_changed_meanwhile_are_another_drop(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """In place, and so that size and name are the same."""
    path = doors.put("m.toml", named("one-of-two"))
    meanwhile = _before(monkeypatch, step, lambda: _either(doors, path).write_bytes(seal(named("two-of-two"))))
    monkeypatch.setattr(foreign.Opened, "is_alone", lambda _: True)  # with a lease, who writes has to wait
    doors.work()
    doors.work()
    assert meanwhile
    assert (doors.left(), len(doors.spool.incoming_ids())) == ([], 2)


def _either(doors: Doors, path: Path) -> Path:
    """The file where it is: under its name, or moved away to be compared."""
    moved = [*doors.spool.taking.glob("*/original")]
    return moved[0] if moved else path


def _before(patched: pytest.MonkeyPatch, step: str, act: Callable[[], object]) -> list[str]:
    """Act before the first of these steps; what is returned tells that it was."""
    original, done = getattr(foreign, step), list[str]()

    def first(*arguments: Any, **more: Any) -> Any:
        if not done:
            done.append(step)
            act()
        return original(*arguments, **more)

    patched.setattr(foreign, step, first)
    return done


def test_the_same_id_is_the_same_workflow(doors: Doors) -> None:
    doors.put("m.toml", named("nightly"))
    doors.work()
    first = doors.receipt("m.toml").workflow_id
    doors.put("again.toml", named("nightly"))
    doors.put("other.toml", named("nightly", operation="selftest.nope"))
    doors.put("changed.toml", named("nightly") + b"# more\n")
    doors.work()
    assert (doors.receipt("again.toml").answer, doors.receipt("again.toml").workflow_id) == ("accepted", first)
    assert doors.code("changed.toml") == "id-conflict"
    assert doors.code("other.toml") == "unknown-operation"
    assert doors.spool.incoming_ids() == [first]


def test_hidden_names_are_left_alone(doors: Doors) -> None:
    for name in (".m.toml.swp", ".m.toml.XyZ123"):
        doors.put(name, proof="none")
    doors.work()
    assert sorted(os.listdir(doors.folder)) == [".m.toml.XyZ123", ".m.toml.swp"]


@pytest.mark.parametrize(("bound", "code"), [({"files": 2}, "quota-files"), ({"bytes": 300}, "quota-bytes")])
def test_what_is_beyond_a_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: dict[str, int], code: str
) -> None:
    doors = Doors(tmp_path, monkeypatch, **bound)
    for number in range(4):
        doors.put(f"m{number}.toml")
    doors.work()
    answers = [doors.receipt(f"m{number}.toml").answer for number in range(4)]
    assert answers == ["accepted", "accepted", "rejected", "rejected"]
    assert doors.code("m3.toml") == code
    doors.close()


def test_receipts_of_ours_take_no_room_from_an_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes none of them away can drop as much as before."""
    doors = Doors(tmp_path, monkeypatch, files=3, bytes=2000)
    for number in range(8):
        doors.put(f"m{number}.toml")
        doors.work()
        assert doors.receipt(f"m{number}.toml").answer == "accepted"
    assert len(list(doors.folder.iterdir())) == 8
    doors.close()


def test_a_folder_that_is_full_of_anything_delays_nobody(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no drop is not looked at, and a look that took long is not made again at once, whatever happens there."""
    monkeypatch.setattr(foreign, "MOST_NAMES", 30)
    for number in range(60):
        (doors.folder / f".hidden-{number}").touch()
        (doors.folder / f"x{number}.toml.receipt.json").touch()
    looked: list[bytes] = []
    look = foreign.look

    def looking(folder: int | Path, name: bytes) -> Sight | None:
        looked.append(name)
        return look(folder, name)

    doors.intake()._receipts_at = math.inf  # the receipts are looked at for their age, once an hour
    with monkeypatch.context() as within:
        within.setattr(foreign, "look", looking)
        doors.work()
    assert looked == []
    intake = doors.intake()
    began = boottime()
    monkeypatch.setattr(intake._doorway, "_list", lambda: time.sleep(0.02))
    intake._doorway.look_at = 0.0
    intake.step(Now(now(), boottime(), boot_id()))
    assert intake.heed([f"{doors.folder}/.x", "/elsewhere"]) == ["/elsewhere"]
    assert intake.next_due() >= began + doorway.MOST_REST_SECONDS


def test_a_folder_that_takes_long_to_list_rests_the_longer(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    doors.put("m.toml")
    rests: dict[str, float] = {}
    list_sights = foreign.list_sights

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.02)
        return list_sights(*arguments)

    monkeypatch.setattr(foreign, "list_sights", slowly)
    assert len(candidates(doors.spool, doors.config.drop, rests)[0]) == 1
    assert rests[OWN] > boottime() + 0.2
    assert candidates(doors.spool, doors.config.drop, rests)[0] == []
    assert len(candidates(doors.spool, doors.config.drop)[0]) == 1
    monkeypatch.setattr(foreign, "MOST_NAMES", 0)
    found, wrong = candidates(doors.spool, doors.config.drop)
    assert (found, len(wrong)) == ([], 1)
    assert "not looked at" in wrong[0]


def test_what_is_beyond_the_active_workflows_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doors = Doors(tmp_path, monkeypatch, active_workflows=2)
    for number in range(3):
        doors.put(f"m{number}.toml")
    doors.work()
    assert [doors.receipt(f"m{number}.toml").answer for number in range(3)] == ["accepted", "accepted", "waiting"]
    assert (doors.code("m2.toml"), doors.left()) == ("active-workflows", ["m2.toml"])
    doors.close()


def test_a_request_by_file(doors: Doors) -> None:
    doors.put("m.toml")
    doors.work()
    workflow_id = doors.receipt("m.toml").workflow_id
    doors.ask("stop", verb="cancel", workflow_id=workflow_id, id="stop-1")
    doors.ask("stop-again", verb="cancel", workflow_id=workflow_id, id="stop-1")
    doors.work()
    doors.ask("other", verb="pause", workflow_id=workflow_id, id="stop-1")
    doors.ask("nobody", verb="cancel", workflow_id=new_ulid())
    doors.ask("wrong", verb="resume", workflow_id=workflow_id)
    doors.work()
    assert doors.receipt("stop.request.json").request == "cancel"
    assert doors.receipt("stop-again.request.json").request == "cancel"  # the same request: it is made once
    assert doors.code("other.request.json") == "id-conflict"
    assert doors.code("nobody.request.json") == "unknown-workflow"
    assert doors.code("wrong.request.json") == "request-refused"
    assert [(request.verb, request.operator) for _, request in doors.spool.requests_of(workflow_id)] == [
        ("cancel", OWN)
    ]


def test_receipts_are_no_way_out(doors: Doors, tmp_path: Path) -> None:
    """Whatever an operator puts where a receipt will be, nothing else is written."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    doors.put("m.toml")
    (doors.folder / "m.toml.receipt.json").symlink_to(victim)
    doors.put("n.toml")
    (doors.folder / "n.toml.receipt.json").mkdir()
    doors.work()
    assert (victim.read_text(), doors.receipt("m.toml").answer) == ("untouched", "accepted")
    assert len(doors.spool.incoming_ids()) == 2
