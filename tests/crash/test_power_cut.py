"""The power goes after any system call of a recorded run: what was said before holds, and the rest goes on.

The run is recorded once, below strace. A model of the file system (tests/crash/disk.py) then says for each moment what
a disk may show that has lost what was not synced, and each of these spools is looked at; some are really worked on.
"""

from __future__ import annotations

import os
import random
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioning.storage import checkpoint
from provisioning.storage.check import check
from tests import figures
from tests.crash.aftermath import OTHER_BOOT, boot_again, finish, give_up_endless
from tests.crash.disk import Disk, File, Folder, State
from tests.crash.promises import Began, Said, unexplained
from tests.crash.recording import Moment, may_trace
from tests.crash.trial import Recording, record
from tests.installation import Installation

pytestmark = [pytest.mark.nu, pytest.mark.skipif(not may_trace(), reason="strace is missing or may not trace")]

Choose = Callable[[Disk], State]
Recorded = tuple[Installation, Recording]

LEAST_STATES = 500
"""Of one look at every cut; the run has about 750."""


class Shown:
    """A folder that is made to be one state after the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state: State = {}

    def show(self, state: State) -> bool:
        """Make the folder that state; whether anything changed."""
        gone = sorted((path for path in self.state if path not in state), reverse=True)
        changed = sorted(path for path, data in state.items() if self.state.get(path, b"absent") != data)
        for path in gone:
            (os.rmdir if self.state[path] is None else os.unlink)(self.root / path)
        for path in changed:
            data = state[path]
            if data is None:
                (self.root / path).mkdir(0o700)
            else:
                (self.root / path).write_bytes(data)
        self.state = state
        return bool(gone or changed)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """One run, recorded; its spool is made anew by whoever works on after a cut."""
    site = Installation(tmp_path_factory.mktemp("power"), tmp_path_factory.mktemp("cache"))
    try:
        yield site, record(site)
    finally:
        site.close()


@pytest.fixture
def shown() -> Iterator[Shown]:
    """Where a write costs little: what is cut here is the model of a disk."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Shown(Path(name))


def cut_everywhere(recorded: Recording, shown: Shown, choose: Choose, disk: Disk | None = None) -> int:
    """Cut after every change of what the disk may show, and whenever something is said or begun; how many cuts.

    AssertionError names the moment and what does not hold.
    """
    disk = disk or Disk(recorded.root)
    said: list[Said] = []
    cuts = 0
    for index, moment in enumerate(recorded.moments):
        said += recorded.said.get(index, [])
        if not disk.take(moment) and index not in recorded.said:
            continue
        cuts += 1
        state = choose(disk)
        broken = [missing for promise in said if (missing := promise(state))]
        if shown.show(state) or index == recorded.made:
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(checkpoint, "boot_id", lambda: OTHER_BOOT)  # the host is up again
                found = check(shown.root / "spool")
            broken += unexplained(found, recorded.plans, made=index >= recorded.made)
        assert not broken, (index, moment.call.name, broken)
    figures.note("power cut, recorded calls replayed", points=cuts)
    return cuts


def test_what_was_synced_is_enough(recording: Recorded, shown: Shown) -> None:
    assert cut_everywhere(recording[1], shown, Disk.synced) > LEAST_STATES


def test_names_come_with_their_bytes(recording: Recorded, shown: Shown) -> None:
    """All names are on the disk, and of the bytes only what was synced: ext4 without auto_da_alloc, or xfs."""
    assert cut_everywhere(recording[1], shown, Disk.names_only) > LEAST_STATES


def mix(recorded: Recording, shown: Shown, seed: int) -> None:
    """Cut everywhere, what was not synced being there or not by chance: all names and torn bytes, then anything."""
    for choose in (Disk.torn, Disk.mixed):
        fate = random.Random(seed)
        try:
            assert cut_everywhere(recorded, shown, lambda disk: choose(disk, fate)) > LEAST_STATES  # noqa: B023
        except AssertionError as error:
            error.add_note(f"seed {seed}, {choose.__name__}")
            raise


def test_some_of_the_rest_may_be_there(recording: Recorded, shown: Shown) -> None:
    mix(recording[1], shown, 1)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(2, 22, 5))
def test_more_mixtures(recording: Recorded, shown: Shown, first: int) -> None:
    for seed in range(first, first + 5):
        mix(recording[1], shown, seed)


def work_on(recording: Recorded, seed: int) -> None:
    """Cut at one moment by chance, boot again on what the disk may show, and see everything come to its end."""
    site, recorded = recording
    fate = random.Random(seed)
    at = fate.randrange(recorded.made + 1, len(recorded.moments))
    disk = Disk(recorded.root)
    for moment in recorded.moments[: at + 1]:
        disk.take(moment)
    choose: Choose = fate.choice([Disk.synced, lambda disk: disk.torn(fate), lambda disk: disk.mixed(fate)])
    state = choose(disk)
    said = [promise for index, promises in recorded.said.items() if index <= at for promise in promises]
    try:
        boot_again(site, recorded.root, state, recorded.marks_until(at))
        finish(site, recorded, said)
    except AssertionError as error:
        error.add_note(f"seed {seed}: cut after call {at}, {recorded.moments[at].call.name}")
        raise
    figures.note("the same, worked on afterwards", points=1)


def test_a_mark_that_was_cut_off_waits_for_a_person(recording: Recorded) -> None:
    """Only what was synced when its process began is there: enough to know that it may have been made."""
    site, recorded = recording
    begins = [(at, began) for at, said in recorded.said.items() for began in said if isinstance(began, Began)]
    at = next(at for at, began in begins if began.task_id == "second")
    disk = Disk(recorded.root)
    for moment in recorded.moments[: at + 1]:
        disk.take(moment)
    boot_again(site, recorded.root, disk.synced(), recorded.marks_until(at))
    give_up_endless(site, recorded)
    site.drain(max_wait=10)
    workflow_id = recorded.ids["mixed"]
    assert site.state(workflow_id) == "paused"
    assert site.outcomes(workflow_id, "second") == ["interrupted"]
    assert site.task(workflow_id, "second").held
    assert "second" not in site.mark_lines()
    finish(site, recorded, [])
    assert site.outcomes(workflow_id, "second") == ["interrupted", "succeeded"]


def test_work_goes_on(recording: Recorded) -> None:
    for seed in range(5):
        work_on(recording, seed)


@pytest.mark.long
@pytest.mark.parametrize("first", range(5, 105, 10))
def test_work_goes_on_from_more_cuts(recording: Recorded, first: int) -> None:
    for seed in range(first, first + 10):
        work_on(recording, seed)


# The model can fail: without the syncs the same run does not survive.


class Forgetful(Disk):
    """A disk to which the program never synced what is of that kind."""

    def __init__(self, root: Path, kind: type[File | Folder]) -> None:
        super().__init__(root)
        self._kind = kind

    def _sync(self, moment: Moment) -> bool:
        if isinstance(self._node(moment.call.descriptor(0)[1]), self._kind):
            return False
        return super()._sync(moment)


@pytest.mark.parametrize(
    ("kind", "choose"),
    [(Folder, Disk.synced), (File, Disk.synced), (File, Disk.names_only)],
    ids=["folders", "files", "files, all names are there"],
)
def test_a_forgotten_sync_is_found(
    recording: Recorded, shown: Shown, kind: type[File | Folder], choose: Choose
) -> None:
    recorded = recording[1]
    with pytest.raises(AssertionError, match="unusable"):  # the spool itself, as soon as it is said to be there
        cut_everywhere(recorded, shown, choose, Forgetful(recorded.root, kind))


@pytest.mark.parametrize(
    ("folders", "complaint"),
    [
        (r"incoming|tmp/\w+", "accepted and is not there"),  # a rename is synced by either of its folders
        (r"workflows|incoming", "foreign-file"),  # what has been begun is in a folder that is not claimed
        (r"ids", "no-reservation"),
        (r"nulib", "not as it was kept"),
        (r"tasks", "would be made again"),
        (r"outcomes", "no-outcome|outcome of those before|depends on|would be made again"),
        (r"requests", "neither applied nor asked|and its task bad has not"),
    ],
)
def test_each_folder_has_to_be_synced(recording: Recorded, shown: Shown, folders: str, complaint: str) -> None:
    """One place where the syncs are forgotten is enough."""
    recorded = recording[1]
    forgotten = re.compile(rf".*/({folders})")

    class WithoutSome(Disk):
        def _sync(self, moment: Moment) -> bool:
            return not forgotten.fullmatch(moment.call.descriptor(0)[1]) and super()._sync(moment)

    with pytest.raises(AssertionError, match=complaint):
        cut_everywhere(recorded, shown, Disk.synced, WithoutSome(recorded.root))
