"""Real power cuts on a file system of its own: worked, cut, mounted again, worked on. Run by test_real_power_cut.py.

It must be the first process of a pid namespace and alone in its mount namespace: a cut kills every other process that
it can see, and with the last one everything that was mounted is gone. The boot_id of each boot is mounted over the
kernel's, so that the orchestrators that come after a cut see another host as they would.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioning.clock import boot_id
from provisioning.core.workflow import Plan
from provisioning.storage.check import check
from provisioning.storage.spool import Spool
from tests.crash.aftermath import ROUNDS, answer
from tests.crash.disk import State
from tests.crash.promises import Asked, Began, Said, Submitted, unexplained
from tests.crash.trial import SECOND, read_tree
from tests.installation import Installation
from tests.waiting import wait_for

SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN."""
WITHOUT_ITS_LOG = struct.pack("I", 2)
"""What is in memory is lost, that of the journal included."""
IMAGE_BYTES = 512 << 20
MAKE = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}
OPTIONS = {"ext4": "loop,commit=300,noauto_da_alloc", "xfs": "loop"}
"""Nothing reaches the disk because time passes, and no name drags its bytes along."""
CANNOT_MOUNT = 77
EVENTS = 19
"""So many lines do the workflows of one round have in their events when all has been done that ends."""


class Machine:
    """A disk, and the power that it has."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.image = folder / "image"
        self.disk = folder / "disk"
        self.disk.mkdir()
        self._kind = kind
        self._boot = folder / "boot_id"
        with open(self.image, "wb") as image:
            image.truncate(IMAGE_BYTES)
        subprocess.run([*MAKE[kind], str(self.image)], check=True)

    def boot(self) -> None:
        """Mount the disk, which replays its journal, in a boot of its own."""
        self._boot.write_text(f"{uuid.uuid4()}\n")
        subprocess.run(["mount", "-o", OPTIONS[self._kind], str(self.image), str(self.disk)], check=True)
        if os.path.ismount("/proc/sys/kernel/random/boot_id"):
            subprocess.run(["umount", "/proc/sys/kernel/random/boot_id"], check=True)
        subprocess.run(["mount", "--bind", str(self._boot), "/proc/sys/kernel/random/boot_id"], check=True)
        boot_id.cache_clear()
        assert boot_id() == self._boot.read_text().strip()

    def cut(self) -> None:
        """Let the power go: what was not synced is lost, and every process but this one ends at once."""
        assert os.getpid() == 1, "this would kill what is not ours"
        witness = self.disk / "witness"
        witness.write_bytes(b"not synced" * 400)
        descriptor = os.open(self.disk, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, WITHOUT_ITS_LOG)
        finally:
            os.close(descriptor)
        with contextlib.suppress(ProcessLookupError):  # nobody else is there
            os.kill(-1, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            (self.disk / "after").write_bytes(b"")
        subprocess.run(["umount", str(self.disk)], check=True)
        self.boot()
        assert not witness.exists() or witness.stat().st_size == 0, "the cut lost nothing"
        witness.unlink(missing_ok=True)


def tasks(site: Installation, number: int) -> dict[str, list[dict[str, Any]]]:
    """Two workflows of one round, and one that never ends; a task that leaves a mark is named as its mark."""
    first, second, third, last, never = (f"{name}-{number}" for name in ("first", "second", "third", "last", "never"))
    again = {"max_attempts": 2, "initial_delay": "10ms"}
    return {
        "mixed": [
            site.mark(first),
            site.mark(second, depends_on=[first]),
            {"id": "noop", "operation": "selftest.noop", "depends_on": [first]},
            {"id": "flaky", "operation": "trial.again", "params": {"script": SECOND}, "retry": again},
            site.mark(last, depends_on=["noop", "flaky"], after=[second]),
        ],
        "named": [
            {"id": "echo", "operation": "selftest.echo", "params": {"value": number}},
            site.mark(third, depends_on=["echo"]),
        ],
        "endless": [
            {"id": "sleep", "operation": "selftest.sleep", "params": {"seconds": 600}},
            site.mark(never, depends_on=["sleep"]),
        ],
    }


def work(site: Installation, number: int, fate: random.Random) -> tuple[dict[str, str], list[Said]]:
    """Submit and work until some event, and a little longer; the workflow_ids, and what was said."""
    ids: dict[str, str] = {}
    said: list[Said] = []
    for name, each in tasks(site, number).items():
        ids[name] = site.submit(each, **({"id": f"nightly-{number}"} if name == "named" else {}))
        said.append(Submitted(ids[name]))
    if (until := fate.randint(0, EVENTS)) > 0:
        site.start("orchestrator", "run", "--slots", "3")
        wait_for(lambda: sum(len(list(site.folder(i).events())) for i in ids.values()) >= until)
    if fate.random() < 0.5:
        site.ask("cancel", ids["endless"])
        said.append(Asked(ids["endless"], "cancel"))
    threading.Event().wait(fate.uniform(0, 0.05))  # any instant will do, and no predicate knows it
    site.spool.close()
    return ids, said


def plans_of(spool: Spool) -> dict[str, Plan]:
    """The plans that there are."""
    folders = ((workflow_id, spool.find(workflow_id)) for workflow_id in spool.workflow_ids())
    return {workflow_id: plan for workflow_id, folder in folders if (plan := folder.plan())}


def hold_to(state: State, said: list[Said], plans: list[Plan], marks: list[str]) -> None:
    """See that what was said, and what was begun as its mark shows, is on the disk."""
    for plan in plans:
        said = [*said, *(Began(plan, task.id, 1) for task in plan.workflow.tasks if task.id in marks)]
    broken = [missing for promise in said if (missing := promise(state))]
    assert not broken, broken


def finish(site: Installation, ids: dict[str, str]) -> None:
    """Work on to the end, as a person would see to it."""
    if site.state(ids["endless"]) != "cancelled":
        site.ask("cancel", ids["endless"])
    for _ in range(ROUNDS):
        site.drain(max_wait=10)
        asked = [workflow_id for workflow_id in ids.values() if answer(site, workflow_id)]
        if not asked:
            break
    made = site.mark_lines()
    assert len(made) == len(set(made)), f"made twice: {made}"
    assert not any(mark.startswith("never") for mark in made)
    for name, workflow_id in ids.items():
        marks = {task.id for task in plans_of(site.spool)[workflow_id].workflow.tasks if task.id[-1].isdigit()}
        if name != "endless" and site.state(workflow_id) == "succeeded":
            assert marks <= set(made), (marks, made)
        else:  # given up by a person: it was interrupted while it made a mark that is there
            assert site.state(workflow_id) == "cancelled", site.said()
            assert name == "endless" or marks & set(made), (marks, made)


def rounds(machine: Machine, site: Installation, seeds: Iterator[int]) -> Iterator[dict[str, Any]]:
    """One cut after the other on the same disk; what was lost and found in each."""
    for number, seed in enumerate(seeds):
        fate = random.Random(seed)
        ids, said = work(site, number, fate)
        before = site.mark_lines()
        under_way = sum(site.state(ids[name]) in ("queued", "running") for name in ("mixed", "named"))
        machine.cut()
        plans = plans_of(site.spool)
        these = [plans[workflow_id] for workflow_id in ids.values() if workflow_id in plans]
        hold_to(read_tree(machine.disk, site.spool.root), said, these, site.mark_lines())
        left = unexplained(check(site.spool.root), plans, made=True)
        assert left == [], left
        finish(site, ids)
        cut_off = sum(
            site.outcomes(workflow_id, task_id).count("interrupted")
            for workflow_id in ids.values()
            for task_id in site.states(workflow_id)
        )
        later = len(site.mark_lines()) - len(before)
        yield {"seed": seed, "under_way": under_way, "interrupted": cut_off, "marks_after": later}


def main(kind: str, folder: Path, first: int, count: int) -> int:
    """Cut so many times; a line of JSON for each cut."""
    machine = Machine(folder, kind)
    try:
        machine.boot()
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"{error}\n")
        return CANNOT_MOUNT
    (folder / "site").mkdir()
    site = Installation(folder / "site", folder / "cache")
    site.environment["PROVISIONING_SPOOL"] = str(machine.disk / "spool")
    site.spool = Spool.create(machine.disk / "spool")
    for report in rounds(machine, site, iter(range(first, first + count))):
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
    site.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
