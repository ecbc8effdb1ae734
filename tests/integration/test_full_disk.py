"""Real orchestrators on disks that really become full: nothing that was done is lost, and all goes on by itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioning.core.locate import Limits
from provisioning.core.proof import seal
from provisioning.core.tasks import Sources
from provisioning.errors import SpoolUnusable
from provisioning.execution.nulib import load_nulib
from provisioning.orchestrator import foreground
from provisioning.orchestrator.trust import own_name
from provisioning.storage.spool import Spool
from provisioning.storage.submission import checked
from tests.disks import fill, fill_inodes, tmpfs
from tests.doors import GOOD
from tests.installation import Gate, Installation
from tests.integration.test_attempt import shell
from tests.waiting import wait_for

pytestmark = [pytest.mark.nu, pytest.mark.root]

MIB = 1 << 20


class OnDisk(Installation):
    """An installation whose spool alone is on a small disk."""

    def __init__(self, root: Path, cache_dir: Path, disk: Path) -> None:
        super().__init__(root, cache_dir)
        self.disk = disk
        self.settings(spool=disk / "spool", disk_free_bytes=0, disk_free_inodes=0)
        self.spool.close()
        self.spool = Spool.create(disk / "spool")
        self.held_to_marks()

    def held_to_marks(self) -> None:
        """Open the spool with the marks of the settings."""
        self.spool.close()
        self.spool = Spool.open(self.spool.root, self.config.disk)

    def provisioning(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "provisioning", *arguments],
            env=self.environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip


@pytest.fixture
def small(tmp_path: Path, cache_dir: Path) -> Iterator[OnDisk]:
    """A spool on 8 MiB."""
    with tmpfs(tmp_path / "disk", "size=8m") as disk:
        made = OnDisk(tmp_path, cache_dir, disk)
        try:
            yield made
        finally:
            (disk / "filler").unlink(missing_ok=True)
            made.close()


@pytest.fixture
def few(tmp_path: Path, cache_dir: Path) -> Iterator[OnDisk]:
    """A spool on a disk of 500 inodes."""
    with tmpfs(tmp_path / "disk", "nr_inodes=500") as disk:
        made = OnDisk(tmp_path, cache_dir, disk)
        try:
            yield made
        finally:
            for path in disk.glob("inode-*"):
                path.unlink()
            made.close()


MakeGate = Callable[[str], Gate]


def test_outcomes_land_on_a_disk_that_became_full_under_their_tasks(small: OnDisk, gate: MakeGate) -> None:
    gates = [gate(f"gate-{number}") for number in range(3)]
    tasks = [shell(f"t{number}", one.script) for number, one in enumerate(gates)]
    workflow_id = small.submit([*tasks, shell("after", "true", depends_on=["t0"])])
    small.orchestrator()
    for one in gates:
        one.reached()
    filler = fill(small.disk)
    for one in gates:
        one.open()
    folder = small.folder(workflow_id)
    for number in range(3):
        wait_for(lambda task=f"t{number}": folder.outcome(task, 1), what=lambda: f"an outcome\n{small.said()}")  # type: ignore[misc]
        assert small.outcome(workflow_id, f"t{number}").outcome == "succeeded"
    filler.unlink()
    assert small.wait_ended(workflow_id) == "succeeded"
    assert all(small.outcomes(workflow_id, f"t{number}") == ["succeeded"] for number in range(3))


def test_outcomes_land_where_no_inode_is_left(few: OnDisk, gate: MakeGate) -> None:
    one = gate("gate")
    workflow_id = few.submit([shell("t", one.script)])
    few.orchestrator()
    one.reached()
    taken = fill_inodes(few.disk)
    assert os.statvfs(few.disk).f_ffree == 0
    one.open()
    wait_for(lambda: few.folder(workflow_id).outcome("t", 1), what=lambda: f"the outcome\n{few.said()}")
    for path in taken:
        path.unlink()
    assert few.wait_ended(workflow_id) == "succeeded"


def test_output_that_a_full_disk_refuses_is_counted_and_fails_nothing(small: OnDisk, gate: MakeGate) -> None:
    one = gate("gate")
    small.settings(limits_log_bytes=4 * MIB)
    script = f"echo begin; {one.script}; yes | head -c 300000; echo end"
    workflow_id = small.submit([shell("t", script)])
    small.orchestrator()
    one.reached()
    wait_for(lambda: small.log(workflow_id, "t"), what="the first line")
    filler = fill(small.disk)
    one.open()
    wait_for(lambda: small.folder(workflow_id).outcome("t", 1), what=lambda: f"the outcome\n{small.said()}")
    record, log = small.outcome(workflow_id, "t"), small.log(workflow_id, "t")
    assert record.outcome == "succeeded"
    assert log.startswith(b"begin\n")
    assert record.log_bytes == len(log)
    marks = re.findall(rb"\n\[\d+ bytes of output left out here\]\n", log)
    assert len(log) - sum(map(len, marks)) + record.log_dropped_bytes == len("begin\nend\n") + 300_000
    assert record.log_dropped_bytes > 0
    filler.unlink()
    assert small.wait_ended(workflow_id) == "succeeded"


def test_a_result_larger_than_its_room_waits_until_there_is_room(small: OnDisk, gate: MakeGate) -> None:
    one = gate("gate")
    params = {"script": one.script, "size": 300_000}
    workflow_id = small.submit([{"id": "t", "operation": "trial.large", "params": params}])
    small.orchestrator()
    one.reached()
    worker = small.worker(workflow_id, "t")
    last = small.task(workflow_id, "t").last
    assert last is not None
    scratch = small.spool.tmp / last.worker
    assert list(scratch.glob("*.spare")), "it has room"
    filler = fill(small.disk)
    one.open()
    wait_for(lambda: not list(scratch.glob("*.spare")), what="the end of a room that is too small")
    fill(small.disk)
    assert small.folder(workflow_id).outcome("t", 1) is None
    assert small.states(workflow_id) == {"t": "running"}
    filler.unlink()
    assert small.wait_ended(workflow_id) == "succeeded"
    assert small.outcomes(workflow_id, "t") == ["succeeded"]
    assert len(small.outcome(workflow_id, "t").result["text"]) == 300_000
    assert small.worker(workflow_id, "t") == worker


@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_below_a_mark_starts_stop_and_go_on_by_themselves(
    tmp_path: Path, cache_dir: Path, gate: MakeGate, what: str
) -> None:
    """What runs ends, what is asked is done, and what waits says why; one line when it begins and one when it ends."""
    one = gate("gate")
    with tmpfs(tmp_path / "disk", "size=64m,nr_inodes=5000") as disk:
        site = OnDisk(tmp_path, cache_dir, disk)
        try:
            site.settings(disk_free_bytes=16 * MIB, disk_free_inodes=1000)
            site.held_to_marks()
            running = site.submit([shell("a", one.script), shell("b", "true", depends_on=["a"])])
            site.orchestrator()
            one.reached()
            queued = site.submit([shell("a", "true")])
            site.wait_ended(queued)
            filler = use_up(disk, what)
            wait_for(lambda: "less than the" in site.said(), what=lambda: f"the rest\n{site.said()}")
            refused = site.provisioning("selftest", "noop", "--orchestrated")
            assert (refused.returncode, refused.stdout) == (6, "")
            assert f"disk.free_{what}" in refused.stderr
            one.open()
            wait_for(lambda: site.states(running).get("a") == "succeeded", what=site.said)
            explained = site.provisioning("workflow", "explain", running).stdout
            assert "task b is pending: is waiting for disk space" in explained
            health = site.provisioning("orchestrator", "health")
            assert health.returncode == 6
            assert f"disk.free_{what}" in health.stdout
            assert "waiting for disk space" in site.provisioning("orchestrator", "status").stdout
            assert site.states(running) == {"a": "succeeded"}
            assert site.provisioning("workflow", "cleanup", "--older-than", "0s").stdout.split() == [queued]
            for path in filler:
                path.unlink()
            assert site.wait_ended(running) == "succeeded"
            log = (site.spool.logs / "orchestrator.log").read_text()
            assert log.count("nothing is claimed or started") == 1
            assert log.count("claims and starts go on") == 1
        finally:
            site.close()


def use_up(disk: Path, what: str) -> list[Path]:
    """Leave less than 16 MiB or 1000 inodes of 64 MiB and 5000."""
    if what == "bytes":
        (disk / "filler").write_bytes(b"x" * (50 * MIB))
        return [disk / "filler"]
    paths = [disk / f"inode-{number}" for number in range(4200)]
    for path in paths:
        path.touch()
    return paths


def test_a_drain_and_a_foreground_command_end_below_a_mark(small: OnDisk) -> None:
    workflow_id = small.submit([shell("a", "true")])
    small.settings(disk_free_bytes="1GiB")
    drained = small.provisioning("orchestrator", "run", "--until-empty", "--max-wait", "1")
    assert drained.returncode == 6
    assert "less than the 1 GiB of disk.free_bytes" in drained.stderr
    assert "waiting for disk space" in small.provisioning("workflow", "explain", workflow_id).stdout
    assert small.provisioning("selftest", "noop").returncode == 6
    assert small.spool.workflow_ids() == [workflow_id]
    small.provisioning("workflow", "cancel", workflow_id)
    assert small.state(workflow_id) == "cancelled"
    assert small.provisioning("orchestrator", "run", "--until-empty").returncode == 0, "there is nothing to start"


def test_a_foreground_command_whose_disk_has_become_low_leaves_its_workflow(
    small: OnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepted above the mark, and below it before its task could start."""
    monkeypatch.setattr(foreground, "PATIENCE_SECONDS", 0.1)
    manifest = json.dumps({"schema": 1, "name": "one", "tasks": [shell("t", "true")]}).encode()
    accepted = checked(
        manifest, "json", "m", small.catalogue, operator="tester", door="cli", limits=Limits(), sources=Sources()
    )  # fmt: skip
    lock = small.spool.submit_held(manifest, "json", accepted)
    small.settings(disk_free_bytes="1GiB")
    config = small.config
    with pytest.raises(SpoolUnusable, match=f"1 GiB of disk.free_bytes; workflow {accepted.workflow_id} waits"):
        foreground.work_workflow(
            Spool.open(small.spool.root, config.disk),
            config,
            lambda: load_nulib(config),
            accepted.workflow_id,
            on_change=lambda: None,
            interruptions=lambda: 0,
            operator="tester",
            lock=lock,
        )
    small.settings(disk_free_bytes=0)
    assert small.drain(max_wait=5) == 0
    assert small.state(accepted.workflow_id) == "succeeded"


def test_a_full_disk_accepts_nothing_by_half(small: OnDisk) -> None:
    """Without a mark that would have refused it: each write until the disk is full is tried."""
    manifest = small.root / "m.json"
    tasks = [shell(f"t{number}", "true " * 100) for number in range(40)]
    manifest.write_text(json.dumps({"schema": 1, "name": "big", "tasks": tasks}))
    filler = fill(small.disk)
    codes = set()
    for spare in (0, 1, 2, 4, 8, 16):
        os.truncate(filler, os.stat(filler).st_size - spare * 4096)
        done = small.provisioning("batch", "submit", str(manifest))
        codes.add(done.returncode)
        accepted = done.stdout.split()
        assert done.returncode == (0 if accepted else 6), done.stderr
        assert small.spool.workflow_ids() == accepted
        if accepted:
            assert small.folder(accepted[0]).manifest()[0] == manifest.read_bytes()
            break
        assert "No space left" in done.stderr
    assert codes == {0, 6}
    filler.unlink()
    assert small.drain(max_wait=5) == 0


def test_a_drop_waits_until_there_is_room_and_ends_no_orchestrator(small: OnDisk) -> None:
    """No mark warns of it: the disk itself refuses."""
    small.settings(metrics_seconds=0)  # what is said here is of the drop
    folder = small.spool.drop / own_name()
    folder.mkdir(mode=0o700)
    (folder / ".m.toml").write_bytes(seal(b"# it needs room\n" + GOOD))
    (folder / ".m.toml").chmod(0o600)
    process = small.orchestrator()
    filler = fill(small.disk)
    (folder / ".m.toml").rename(folder / "m.toml")
    wait_for(lambda: "No space left" in small.said(), 20, "what the disk said")
    assert process.poll() is None
    filler.unlink()
    receipt = folder / "m.toml.receipt.json"
    wait_for(lambda: receipt.exists() and json.loads(receipt.read_text()).get("state") == "succeeded", 30, "its end")
    assert process.poll() is None
    assert len(small.spool.claimed_ids()) == 1
