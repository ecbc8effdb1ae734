"""The spool: opening, submitting, claiming, locks, requests; and what a crash between two steps leaves."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provisioning.core.workflow import FORMAT
from provisioning.errors import Refused, SpoolUnusable
from provisioning.storage import files
from provisioning.storage.spool import DOORS, FOLDERS, Spool
from tests.simulation.faults import PowerCut, failing
from tests.simulation.values import MANIFEST, ONE, TWO, submission


def another(spool: Spool) -> Spool:
    """The same spool as another process has it."""
    return Spool.open(spool.root)


def submit(spool: Spool, workflow_id: str = ONE, **rest: Any) -> str:
    return spool.submit(MANIFEST, "json", submission(workflow_id, **rest))


def crash(spool: Spool, monkeypatch: pytest.MonkeyPatch, call: str, deed: Callable[[], object]) -> None:
    """Do the deed up to its use of files.`call`; the process that did it is gone then."""

    def end(*_args: Any, **_rest: Any) -> None:
        raise PowerCut

    with monkeypatch.context() as patched:
        patched.setattr(files, call, end)
        with pytest.raises(PowerCut):
            deed()
    os.close(spool.scratch.descriptor)
    spool._scratch = None


# Opening


def test_create_makes_all_and_does_no_harm_twice(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path / "deep" / "spool")
    assert {*FOLDERS, *DOORS, "format"} == set(os.listdir(spool.root))
    assert (spool.root / "format").read_text() == f"{FORMAT}\n"
    assert {os.stat(spool.root / name).st_mode & 0o777 for name in (*FOLDERS, *DOORS)} == {0o700}
    submit(spool)
    (spool.root / "rejected").rmdir()
    assert Spool.create(spool.root).workflow_ids() == [ONE]
    spool.close()


def test_create_takes_no_folder_that_has_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(Refused, match=r"is not empty and no spool: it has notes\.txt"):
        Spool.create(tmp_path)
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_create_takes_the_folder_of_a_checkout(tmp_path: Path) -> None:
    for name in ("README.md", ".gitignore"):
        (tmp_path / name).write_text("")
    (tmp_path / "examples").mkdir()
    tmp_path.chmod(0o775)
    Spool.create(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", ["", "incoming", "logs"])
@pytest.mark.parametrize("bit", [0o020, 0o002])
def test_a_spool_in_which_others_may_write_is_refused(spool: Spool, name: str, bit: int) -> None:
    path = spool.root / name
    path.chmod(0o700 | bit)
    for use in (Spool.open, Spool.create):
        with pytest.raises(Refused, match=f"write in {path}$") as raised:
            use(spool.root)
        assert raised.value.hint == f"chmod go-w {path}"


def damage_format(root: Path) -> None:
    (root / "format").write_text("2\n")


def damage_kind(root: Path) -> None:
    (root / "format").unlink()
    (root / "format").mkdir()


def damage_folder(root: Path) -> None:
    (root / "requests").rmdir()


def damage_link(root: Path) -> None:
    (root / "format").rename(root / "other")
    (root / "format").symlink_to("other")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_format, "format '2', this version works format 1"),
        (damage_kind, "not a regular file"),
        (damage_folder, "lacks requests"),
        (damage_link, "Too many levels"),
        (lambda root: (root / "format").write_bytes(b"\xff\xfe"), "has format"),
        (lambda root: (root / "format").write_bytes(b"1" * 100), "larger than"),
    ],
)
def test_open_says_what_is_wrong(spool: Spool, damage: Callable[[Path], object], message: str) -> None:
    damage(spool.root)
    with pytest.raises(SpoolUnusable, match=message) as raised:
        Spool.open(spool.root)
    assert raised.value.hint


@pytest.mark.parametrize("kind", ["missing", "file", "below a file"])
def test_there_is_no_spool(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = {"missing": tmp_path / "no", "file": tmp_path / "file", "below a file": tmp_path / "file" / "x"}[kind]
    with pytest.raises(SpoolUnusable, match="there is no spool at"):
        Spool.open(path)
    if kind != "missing":
        with pytest.raises((Refused, SpoolUnusable), match=r"is no folder|cannot make"):
            Spool.create(path)


def test_nothing_is_made_in_a_spool_of_a_newer_format(spool: Spool) -> None:
    damage_format(spool.root)
    damage_folder(spool.root)
    with pytest.raises(SpoolUnusable, match="has format '2'"):
        Spool.create(spool.root)
    assert not (spool.root / "requests").exists()


@pytest.mark.root
def test_a_spool_belongs_to_one_user(spool: Spool) -> None:
    os.chown(spool.root, 65534, 65534)
    damage_folder(spool.root)
    for use in (Spool.open, Spool.create):
        with pytest.raises(SpoolUnusable, match="belongs to uid 65534, this process is uid 0"):
            use(spool.root)
    assert not (spool.root / "requests").exists()


AS_NOBODY = """
import os, sys, pathlib
from provisioning.storage.spool import Spool
from provisioning.errors import SpoolUnusable
os.setgid(65534)
os.setuid(65534)
try:
    Spool.open(pathlib.Path(sys.argv[1])).scratch
except SpoolUnusable as error:
    print(error.message, error.hint, sep=" | ")
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("mode", "message"),
    [(0o700, ""), (0o500, "Permission denied | the spool must belong"), (0o000, "cannot read")],
)
def test_a_spool_that_cannot_be_written_or_read(mode: int, message: str) -> None:
    with tempfile.TemporaryDirectory() as place:  # not below tmp_path, which nobody else may enter
        os.chmod(place, 0o711)
        spool = Spool.create(Path(place) / "spool")
        for path in [spool.root, spool.root / "format", *(spool.root / name for name in FOLDERS)]:
            os.chown(path, 65534, 65534)
        spool.tmp.chmod(mode)
        spool.root.chmod(mode)
        argv = [sys.executable, "-c", AS_NOBODY, str(spool.root)]
        child = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert message in child.stdout
    assert bool(message) is bool(child.stdout)


# Submitting


def test_submit_appears_complete_and_leaves_nothing_behind(spool: Spool) -> None:
    assert submit(spool) == ONE
    assert sorted(os.listdir(spool.incoming / ONE)) == ["manifest.json", "submission.json"]
    folder = spool.find(ONE)
    assert folder.submission() == submission(ONE)
    assert folder.manifest() == (MANIFEST, "json")
    assert os.listdir(spool.scratch.path) == []


@pytest.mark.parametrize("call", ["write_new", "sync_dir", "move"])
def test_a_crash_before_the_rename_submits_nothing(spool: Spool, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    crash(spool, monkeypatch, call, lambda: submit(spool))
    assert os.listdir(spool.incoming) == []
    files.sweep_scratch(spool.tmp)
    assert os.listdir(spool.tmp) == []


@pytest.mark.parametrize("number", [4, 5])
def test_what_is_refused_for_a_failed_sync_is_not_there(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Else it would be done, and again when it is submitted anew."""
    failing("fsync", OSError(errno.EIO, "broken"), monkeypatch, number=number)  # after files and folder: both parents
    with pytest.raises(SpoolUnusable, match="cannot write"):
        submit(spool)
    assert spool.workflow_ids() == []
    assert submit(spool) == ONE


def test_what_is_submitted_is_on_the_disk_before_it_appears(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    sync, move = os.fsync, files.move

    def note(descriptor: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    def moved(source: Path, target: Path) -> None:
        assert synced == ["manifest.json", "submission.json", source.name]
        move(source, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(files, "move", moved)
    submit(spool)
    assert synced[3:] == ["incoming", spool.scratch.path.name]


def test_the_same_id_with_the_same_bytes_is_the_same_workflow(spool: Spool) -> None:
    assert submit(spool, ONE, id="nightly") == ONE
    assert submit(spool, TWO, id="nightly") == ONE
    spool.claim(ONE)
    assert submit(spool, TWO, id="nightly") == ONE
    assert (spool.incoming_ids(), spool.claimed_ids()) == ([], [ONE])


@pytest.mark.parametrize("change", [{"digest": "1" * 64}, {"operator": "bob"}])
def test_the_same_id_with_other_bytes_or_of_another_is_refused(spool: Spool, change: dict[str, str]) -> None:
    submit(spool, ONE, id="nightly")
    with pytest.raises(Refused, match=f"the id 'nightly' is workflow {ONE} of alice"):
        submit(spool, TWO, id="nightly", **change)
    assert spool.workflow_ids() == [ONE]


@pytest.mark.parametrize("call", ["make_dir", "write_new", "move"])
def test_a_crash_after_the_reservation_is_made_good_by_submitting_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    original = files.write_once

    def reserve(*args: Any, **rest: Any) -> bool:
        try:
            return original(*args, **rest)
        finally:
            monkeypatch.setattr(files, call, lambda *_a, **_r: (_ for _ in ()).throw(PowerCut))

    with monkeypatch.context() as patched:
        kept = getattr(files, call)
        patched.setattr(files, "write_once", reserve)
        with pytest.raises(PowerCut):
            submit(spool, ONE, id="nightly")
    monkeypatch.setattr(files, call, kept)
    assert (os.listdir(spool.ids), spool.workflow_ids()) == (["nightly.json"], [])
    later = another(spool)
    assert submit(later, TWO, id="nightly") == ONE
    assert later.find(ONE).submission().workflow_id == ONE
    later.close()


def test_the_id_stays_taken_after_cleanup(spool: Spool) -> None:
    submit(spool, ONE, id="nightly")
    spool.claim(ONE)
    spool.forget(ONE)
    assert (spool.workflow_ids(), sorted(os.listdir(spool.ids))) == ([], [f"{ONE}.cleaned", "nightly.json"])
    assert submit(spool, TWO, id="nightly") == ONE
    assert spool.workflow_ids() == []
    with pytest.raises(Refused):
        submit(spool, TWO, id="nightly", digest="1" * 64)


def test_without_an_id_cleanup_leaves_nothing(spool: Spool) -> None:
    submit(spool)
    spool.claim(ONE)
    spool.forget(ONE)
    assert [os.listdir(path) for path in (spool.ids, spool.workflows, spool.scratch.path)] == [[], [], []]


def test_two_who_submit_one_id_at_once_make_one_workflow(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is stopped between its reservation and its rename; then the second comes."""
    make_dir = files.make_dir
    first_is_there, go_on = threading.Event(), threading.Event()

    def slow(path: Path) -> None:
        if not first_is_there.is_set():
            first_is_there.set()
            go_on.wait(20)
        make_dir(path)

    monkeypatch.setattr(files, "make_dir", slow)
    found: list[str] = []
    second = another(spool)
    threads = [
        threading.Thread(target=lambda: found.append(submit(spool, ONE, id="nightly"))),
        threading.Thread(target=lambda: found.append(submit(second, TWO, id="nightly"))),
    ]
    threads[0].start()
    assert first_is_there.wait(20)
    threads[1].start()
    threads[1].join(0.2)
    assert found == []
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert found == [ONE, ONE]
    assert spool.workflow_ids() == [ONE]
    second.close()


@pytest.mark.parametrize("lost", ["incoming", "locks"])
def test_a_spool_that_lost_a_folder_says_so(spool: Spool, lost: str) -> None:
    (spool.root / lost).rmdir()
    with pytest.raises(SpoolUnusable, match=lost):
        submit(spool, id="nightly")
