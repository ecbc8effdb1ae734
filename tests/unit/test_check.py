"""What `spool check` finds, what it does not, and that the layout of the format's document has every file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from provisioning.core.states import Outcome, TaskState
from provisioning.core.workflow import FORMAT, Plan, Request, WorkflowCheckpoint
from provisioning.errors import Problem
from provisioning.storage import files, reading
from provisioning.storage.check import CODES, check
from provisioning.storage.checkpoint import WorkflowFolder, encode
from provisioning.storage.naming import StrPath, naming
from provisioning.storage.spool import Spool
from tests.simulation.values import EPOCH, NULIB, checkpoint, record
from tests.unit.at_the_doors import change_a_record, take_under_another_id
from tests.unit.used_spool import ONE, THREE, TWO, use

ROOT = Path(__file__).parents[2]
CLAIMED = Path("workflows") / ONE


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """A spool with one of each file of the format."""
    made = Spool.create(tmp_path / "spool")
    lock = use(made)
    yield made
    lock.release()
    made.close()


def found(spool: Spool) -> list[tuple[str, str]]:
    problems = check(spool.root)
    for problem in problems:
        assert problem.code in CODES
        assert str(problem).count(problem.file) == 1 or problem.code == "unusable"
    return [(problem.code, os.path.relpath(problem.file, spool.root)) for problem in problems]


def test_a_spool_in_use_is_well(spool: Spool) -> None:
    assert found(spool) == []


def test_the_layout_has_every_file_of_a_used_spool(spool: Spool) -> None:
    text = (ROOT / "spool" / "README.md").read_text().split("## Layout")[1].split("```")[1]
    patterns: list[str] = []
    folder = ""
    for line in text.strip().splitlines():
        name = line.strip().split("  ")[0].split(",")[0]
        patterns.append(folder + name if line.startswith(" ") else name)
        folder = folder if line.startswith(" ") else name
    patterns += [f"incoming/<workflow_id>/{name}" for name in ("manifest.toml|json", "submission.json")]
    patterns += [f"nulib/<digest>/{name}" for name in ("tree/<name>", "entries/<name>", "catalogue.json")]
    known = [re.escape(pattern).replace(r"toml\|json", "(toml|json)") for pattern in patterns]
    known = [re.sub(r"<[a-z_]+>", "[^/]+", pattern) + r"\Z" for pattern in known]
    there = [str(path.relative_to(spool.root)) for path in spool.root.rglob("*") if not path.is_dir()]
    assert [name for name in there if not any(re.match(pattern, name) for pattern in known)] == []
    unused = [pattern for pattern in known if not any(re.match(pattern, name) for name in there)]
    assert [pattern for pattern in unused if not pattern.endswith(r"/\Z")] == []


def replace(path: Path, make: Callable[[Path], object]) -> None:
    if path.is_dir():
        files.remove_tree(path)
    else:
        path.unlink(missing_ok=True)
    make(path)


KINDS: dict[str, Callable[[Path], object]] = {
    "link": lambda path: path.symlink_to("elsewhere"),
    "fifo": os.mkfifo,
    "folder": os.mkdir,
    "garbage": lambda path: path.write_bytes(b"{]\n"),
}
PLACES = [
    f"incoming/{TWO}/submission.json",
    *(f"{CLAIMED}/{name}" for name in ("submission.json", "plan.json", "workflow.json")),
    f"{CLAIMED}/tasks/a.json",
    f"{CLAIMED}/outcomes/a.1.json",
    f"requests/{ONE}.{TWO}.json",
    "ids/nightly.json",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_such_file_is_damaged(spool: Spool, place: str, kind: str) -> None:
    replace(spool.root / place, KINDS[kind])
    assert ("damaged", place) in found(spool)
    assert {code for code, _ in found(spool)} <= {"damaged", "no-outcome"}


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_a_log_that_is_no_file_is_damaged(spool: Spool, kind: str) -> None:
    replace(spool.root / CLAIMED / "logs/a.1.log", KINDS[kind])
    assert found(spool) == [("damaged", f"{CLAIMED}/logs/a.1.log")]


@pytest.mark.parametrize("kind", ["link", "fifo", "garbage"])
@pytest.mark.parametrize("place", [str(CLAIMED), f"incoming/{TWO}", f"{CLAIMED}/tasks", f"{CLAIMED}/outcomes"])
def test_what_is_no_folder_is_damaged(spool: Spool, place: str, kind: str) -> None:
    replace(spool.root / place, KINDS[kind])
    assert ("damaged", place) in found(spool)


@pytest.mark.parametrize(
    ("place", "code"),
    [
        (f"{CLAIMED}/plan.json", "no-plan"),
        (f"{CLAIMED}/submission.json", "damaged"),
        (f"{CLAIMED}/outcomes/a.1.json", "no-outcome"),
        (f"{CLAIMED}/tasks/a.json", "unknown-attempt"),
        (f"nulib/{NULIB}", "no-operations"),
        ("format", "unusable"),
    ],
)
def test_what_is_missing(spool: Spool, place: str, code: str) -> None:
    replace(spool.root / place, lambda _path: None)
    assert {each for each, _ in found(spool)} == {code}


@pytest.mark.parametrize(
    "name", ["metrics.txt", "drop/no operator", "taking/x", f"{CLAIMED}/x", f"{CLAIMED}/logs/a.1.json"]
)
def test_a_name_that_the_format_does_not_have(spool: Spool, name: str) -> None:
    (spool.root / name).write_bytes(b"")
    assert found(spool) == [("foreign-file", name)]


def test_a_folder_that_is_open_to_others(spool: Spool) -> None:
    spool.incoming.chmod(0o770)
    assert found(spool) == [("open-to-others", "incoming")]


def test_what_goes_while_it_is_looked_at_is_no_damage(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []
    read = reading.read_regular

    def claimed_meanwhile(path: StrPath, limit: int) -> bytes:
        reads.append(Path(path))
        for gone in (spool.incoming / TWO, spool.requests / f"{ONE}.{TWO}.json"):
            if Path(path) in (gone, gone / "submission.json"):
                files.move(gone, spool.scratch.name())
        return read(path, limit)

    monkeypatch.setattr(reading, "read_regular", claimed_meanwhile)
    assert found(spool) == []
    assert reads.count(spool.root / CLAIMED / "plan.json") == 1


def test_what_the_system_refuses_is_not_called_damaged(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = WorkflowFolder.plan

    def refuse(folder: WorkflowFolder) -> Plan | None:
        if folder.workflow_id != ONE:
            return plan(folder)
        with naming(spool.root / CLAIMED / "plan.json", "read"):
            raise OSError(5, "broken")

    monkeypatch.setattr(WorkflowFolder, "plan", refuse)
    problems: list[Problem] = check(spool.root)
    assert [problem.code for problem in problems] == ["unreadable"]


def change(path: Path, **values: object) -> None:
    """Set members of a JSON file."""
    path.write_bytes(encode({**msgspec.json.decode(path.read_bytes()), **values}))


def change_attempt(path: Path, **values: object) -> None:
    """Set members of the first attempt of a task's checkpoint."""
    attempts = msgspec.json.decode(path.read_bytes())["attempts"]
    change(path, attempts=[{**attempts[0], **values}, *attempts[1:]])


def run_b(spool: Spool) -> None:
    spool.workflow(ONE).save_task(checkpoint("b", TaskState.RUNNING, None))


def forget_a(spool: Spool) -> None:
    for name in ("tasks/a.json", "outcomes/a.1.json"):
        (spool.root / CLAIMED / name).unlink()


def end(spool: Spool, state: str, **values: object) -> None:
    change(spool.root / CLAIMED / "workflow.json", state=state, **values)
    for path in spool.requests.iterdir():
        path.unlink()


CHANGES: dict[str, tuple[str, str, Callable[[Spool, Path], object]]] = {
    "a newer checkpoint": ("newer", f"{CLAIMED}/tasks/a.json", lambda _, path: change(path, format=2)),
    "a newer request": ("newer", f"requests/{ONE}.{TWO}.json", lambda _, path: change(path, format=2)),
    "a submission of another": (
        "foreign-record",
        f"{CLAIMED}/submission.json",
        lambda _, path: change(path, workflow_id=TWO),
    ),
    "a checkpoint of another": (
        "foreign-record",
        f"{CLAIMED}/workflow.json",
        lambda _, path: change(path, workflow_id=TWO),
    ),
    "a plan of another": ("foreign-record", f"{CLAIMED}/plan.json", lambda _, path: change(path, workflow_id=TWO)),
    "another manifest": ("wrong-digest", f"incoming/{TWO}/manifest.json", lambda _, path: path.write_bytes(b"{ }")),
    "no workflow.json": ("no-checkpoint", f"{CLAIMED}/workflow.json", lambda _, path: path.unlink()),
    "no entry": (
        "no-operations",
        f"{CLAIMED}/plan.json",
        lambda spool, _: (spool.nulib / NULIB / "entries/selftest.noop.nu").unlink(),
    ),
    "an open tree of operations": ("open-to-others", f"nulib/{NULIB}/tree", lambda _, path: path.chmod(0o777)),
    "an open workflow": ("open-to-others", f"{CLAIMED}/tasks", lambda _, path: path.chmod(0o770)),
    "an operation not planned": ("contradiction", f"{CLAIMED}/plan.json", lambda _, path: change(path, operations={})),
    "attempts from zero": ("contradiction", f"{CLAIMED}/tasks/b.json", lambda _, path: change_attempt(path, number=0)),
    "an attempt twice": (
        "contradiction",
        f"{CLAIMED}/tasks/b.json",
        lambda spool, _: spool.workflow(ONE).save_task(
            msgspec.structs.replace(
                checkpoint("b", TaskState.RUNNING), attempts=checkpoint("b", TaskState.RUNNING, None).attempts * 2
            )
        ),
    ),
    "running and ended": (
        "contradiction",
        f"{CLAIMED}/tasks/b.json",
        lambda _, path: change_attempt(path, outcome="failed"),
    ),
    "pending and not ended": (
        "contradiction",
        f"{CLAIMED}/tasks/b.json",
        lambda _, path: change(path, state="pending"),
    ),
    "failed and not ended": ("contradiction", f"{CLAIMED}/tasks/b.json", lambda _, path: change(path, state="failed")),
    "succeeded in another word": (
        "contradiction",
        f"{CLAIMED}/outcomes/a.1.json",
        lambda _, path: change(path, outcome="failed"),
    ),
    "an outcome of attempt 2": (
        "unknown-attempt",
        f"{CLAIMED}/outcomes/a.2.json",
        lambda spool, path: path.write_bytes(
            encode(msgspec.structs.replace(record("a", Outcome.FAILED, 2), workflow_id=ONE))
        ),
    ),
    "started too early": ("too-early", f"{CLAIMED}/tasks/b.json", lambda spool, _: forget_a(spool)),
    "a start cut off": ("cut-off", f"{CLAIMED}/tasks/b.json", lambda _, path: os.truncate(path, 20)),
    "ended while running": ("unfinished", f"{CLAIMED}/tasks/b.json", lambda spool, _: end(spool, "failed")),
    "succeeded without a task": ("wrong-end", f"{CLAIMED}/workflow.json", lambda spool, _: end(spool, "succeeded")),
    "other tasks counted": (
        "wrong-end",
        f"{CLAIMED}/workflow.json",
        lambda spool, _: end(spool, "failed", counts={"failed": 5}),
    ),
    "an id of another workflow": ("no-reservation", "ids/nightly.json", lambda _, path: change(path, workflow_id=ONE)),
    "an id that is not kept": ("no-reservation", "ids/nightly.json", lambda _, path: path.unlink()),
    "a request for nobody": (
        "no-workflow",
        f"requests/{THREE}.{TWO}.json",
        lambda spool, _: spool.request(Request(FORMAT, TWO, THREE, "cancel", "alice", EPOCH)),
    ),
    "a file not completed": ("leftover", f"requests/.{ONE}", lambda _, path: path.write_bytes(b"")),
    "a lock that is a folder": ("damaged", f"{CLAIMED}/lock", lambda _, path: replace(path, os.mkdir)),
    "a drop folder of nobody": ("no-operator", "drop/nobody-has-this-name", lambda _, path: path.mkdir()),
    "a drop taken over, of another id": ("foreign-record", f"taking/{ONE}/origin.json", take_under_another_id),
    "a decision that cannot be read": ("damaged", f"receipts/{ONE}.json", lambda _, path: path.write_bytes(b"{}")),
    "a changed audit log": ("broken-chain", "audit/audit.jsonl", change_a_record),
    "claimed twice": ("contradiction", f"incoming/{ONE}", lambda _, path: path.mkdir()),
}


@pytest.mark.parametrize(("code", "place", "deed"), CHANGES.values(), ids=CHANGES.keys())
def test_each_broken_invariant_has_its_code(
    spool: Spool, code: str, place: str, deed: Callable[[Spool, Path], object]
) -> None:
    run_b(spool)
    assert found(spool) == []
    deed(spool, spool.root / place)
    assert (code, place) in found(spool)


def test_an_owner_who_is_another(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provisioning.storage.opening.os.geteuid", lambda: spool.root.stat().st_uid)
    monkeypatch.setattr(os, "lstat", lambda path: os.stat_result([0o40700, 0, 0, 1, 4711, 0, 0, 0, 0, 0]))
    assert ("foreign-owner", "incoming") in found(spool)


def test_every_code_is_in_the_table_of_the_format() -> None:
    text = (ROOT / "spool" / "README.md").read_text().split("| code | meaning |\n|---|---|\n")[1].split("\n\n")[0]
    assert dict(re.findall(r"^\| `(.+?)` \| (.+?) \|", text, re.MULTILINE)) == CODES


def test_every_code_can_be_found() -> None:
    tested = {code for code, _, _ in CHANGES.values()} | {"foreign-owner", "unreadable", "unusable", "foreign-file"}
    in_a_mount_or_of_others = {"elsewhere", "unsafe-parent", "not-removable"}  # tests/unit/test_doors.py
    assert tested | {"no-plan", "no-outcome", "unknown-task"} | in_a_mount_or_of_others == set(CODES)


def test_what_is_wrong_for_a_moment_is_not_reported(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[WorkflowFolder] = []
    look = WorkflowFolder.workflow

    def looking(folder: WorkflowFolder) -> WorkflowCheckpoint | None:
        looks.append(folder)
        if len(looks) == 2:
            (spool.root / CLAIMED / "stray").unlink()
        return look(folder)

    (spool.root / CLAIMED / "stray").write_bytes(b"")
    monkeypatch.setattr(WorkflowFolder, "workflow", looking)
    assert check(spool.root) == []
