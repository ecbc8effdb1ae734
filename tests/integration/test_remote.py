"""What a node does with an attempt's folder, and what is refused before Slurm is asked: no cluster is needed."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from provisioning.clock import new_ulid
from provisioning.core.states import Outcome
from provisioning.core.workflow import FORMAT, OutcomeRecord
from provisioning.errors import InvalidManifest, Refused, SpoolUnusable, UsageError
from provisioning.execution.attempt import Attempts
from provisioning.execution.executor import AttemptRequest, Key
from provisioning.execution.nulib import entry_command
from provisioning.execution.process import process_environment
from provisioning.execution.remote import TAKEN, OnNode, Order, order_of
from provisioning.execution.slurm.commands import Commands
from provisioning.sections import Slurm
from provisioning.storage import files
from provisioning.storage.checkpoint import encode, load
from provisioning.storage.shared import AttemptFolder, Share, Shared, share_path
from tests.installation import CHECKOUT, Installation
from tests.others import in_child
from tests.simulation.values import EPOCH
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

WORKFLOW_ID = "01kc0000000000000000000001"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory that nobody else can read."""
    made = tmp_path / "shared"
    made.mkdir(mode=0o700)
    return made


def ordered(site: Installation, directory: Path, script: str = "") -> Path:
    """The folder of an attempt that marks a line, or runs the script, its order in it."""
    nulib = site.nulib
    nulib.keep(site.spool)
    shared = Shared(site.spool, directory, site.spool.scratch)
    request = AttemptRequest(
        Key(WORKFLOW_ID, "t", 1),
        entry_command(nulib.nu, site.spool, nulib.catalogue.digest, "trial.shell" if script else "selftest.mark"),
        process_environment(site.config.environment),
        {"PATH": site.config.environment.path},
        {"script": script} if script else {"file": str(site.marks), "line": "t"},
        None,
        30.0,
        1.0,
        1 << 20,
        1 << 20,
    )
    folder = shared.attempt(shared.name, WORKFLOW_ID, "t", 1)
    assert shared.begin(folder, order_of(request, 10.0))
    assert not shared.begin(folder, b"other"), "an attempt has one order"
    shared.close()
    return folder.path


def start(folder: Path) -> subprocess.Popen[str]:
    """Start the command that a job is."""
    return subprocess.Popen(
        [*CHECKOUT, "attempt", str(folder)],
        env={"LANG": "C.UTF-8"},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_of_several_jobs_one_makes_the_attempt(site: Installation, directory: Path) -> None:
    folder = ordered(site, directory)
    jobs = [start(folder) for _ in range(4)]
    said = [job.communicate(timeout=60)[0] for job in jobs]
    assert sorted(job.returncode for job in jobs) == [0, TAKEN, TAKEN, TAKEN], said
    assert site.mark_lines() == ["t"]
    assert load(folder / "outcome.json", OutcomeRecord).outcome == "succeeded"
    assert sorted(os.listdir(folder)) == ["claim", "log", "order.json", "outcome.json"]
    assert all(os.stat(folder / name).st_mode & 0o077 == 0 for name in os.listdir(folder))
    again = start(folder)
    assert (again.communicate(timeout=60), again.returncode)[1] == TAKEN
    assert site.mark_lines() == ["t"]


def test_all_of_the_log_is_there_before_the_outcome(
    site: Installation, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of NFS keeps what it writes until it is synced or closed, and the log is closed last.

    In a process of its own: an attempt ends every child that its process has.
    """
    folder = AttemptFolder(ordered(site, directory, "echo said"))
    synced: list[tuple[int, bool]] = []
    real = os.fsync

    def noted(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), os.stat(folder.log)):
            synced.append((os.fstat(descriptor).st_size, folder.outcome.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    order = load(folder.order, Order)

    def attempt() -> tuple[int, list[tuple[int, bool]]]:
        scratch, (end, _) = files.Scratch(folder.path / new_ulid()), os.pipe()
        attempts = Attempts(scratch, Mock(descriptor=end, lag_seconds=0.0, cancelled=lambda: False))
        record = attempts.run(order.request, OnNode(folder), lambda: None)
        attempts.close()
        scratch.close()
        assert record is not None
        return record.log_bytes, synced

    log_bytes, synced = in_child(attempt)
    assert synced == [(log_bytes, False)]
    assert folder.log.read_bytes() == b"said\n"


def test_another_version_does_nothing(site: Installation, directory: Path) -> None:
    folder = ordered(site, directory)
    order = json.loads((folder / "order.json").read_text())
    (folder / "order.json").write_text(json.dumps({**order, "version": "0.0.1"}))
    job = start(folder)
    said = job.communicate(timeout=60)[0]
    assert job.returncode == Refused.exit_code, said
    assert "0.0.1 asks" in said
    assert not (folder / "claim").exists()
    assert site.mark_lines() == []


def test_a_node_without_nushell_does_nothing(site: Installation, directory: Path) -> None:
    folder = ordered(site, directory)
    order = json.loads((folder / "order.json").read_text())
    order["request"]["argv"][0] = "/nonexistent/nu"
    (folder / "order.json").write_text(json.dumps(order))
    job = start(folder)
    said = job.communicate(timeout=60)[0]
    assert "does not have /nonexistent/nu" in said
    assert not (folder / "claim").exists()


def test_an_attempt_that_cannot_be_begun_is_given_back(site: Installation, directory: Path) -> None:
    """Its claim is not kept: another job may make it."""
    folder = ordered(site, directory)
    order = json.loads((folder / "order.json").read_text())
    order["request"]["wanted"] = [["group:one", True, 1]]
    (folder / "order.json").write_text(json.dumps(order))
    (folder / "targets").mkdir()  # where its locks would be
    job = start(folder)
    said = job.communicate(timeout=60)[0]
    assert job.returncode == SpoolUnusable.exit_code, said
    assert not (folder / "claim").exists()


def test_a_directory_of_others_is_refused(site: Installation, directory: Path) -> None:
    directory.chmod(0o750)
    with pytest.raises(Refused, match="others could read"):
        Shared(site.spool, directory, site.spool.scratch)
    with pytest.raises(SpoolUnusable, match="is not there"):
        Shared(site.spool, directory / "none", site.spool.scratch)


def test_a_copy_of_a_spool_has_a_folder_of_its_own(site: Installation, directory: Path) -> None:
    first = Shared(site.spool, directory, site.spool.scratch)
    again = Shared(site.spool, directory, site.spool.scratch)
    assert again.name == first.name
    said = json.loads((site.spool.root / "slurm.json").read_text())
    (site.spool.root / "slurm.json").write_text(json.dumps({**said, "spool": "1:1"}))
    copy = Shared(site.spool, directory, site.spool.scratch)
    assert copy.name != first.name
    for each in (first, again, copy):
        each.close()
    (site.spool.root / "slurm.json").write_text("{")
    with pytest.raises(SpoolUnusable, match="damaged"):
        Shared(site.spool, directory, site.spool.scratch)
    assert (site.spool.root / "slurm.json").read_text() == "{"


def test_two_first_starts_have_one_name(site: Installation, directory: Path) -> None:
    """Else what one of them has begun would be a stranger's to the next start."""
    both = threading.Barrier(4)

    def named() -> str:
        scratch = files.Scratch(site.spool.tmp / new_ulid())
        both.wait(20)
        shared = Shared(site.spool, directory, scratch)
        shared.close()
        scratch.close()
        return shared.name

    with ThreadPoolExecutor(4) as starts:
        names = {start.result(30) for start in [starts.submit(named) for _ in range(4)]}
    assert names == {load(share_path(site.spool.root), Share).name}
    assert os.listdir(directory) == list(names)


def test_a_spool_and_a_directory_are_the_same_whatever_their_device_is_called(
    site: Installation, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On btrfs, overlays and NFS a boot may give them other numbers."""
    first = Shared(site.spool, directory, site.spool.scratch)
    device = os.stat(directory).st_dev
    assert str(device) not in (site.spool.root / "slurm.json").read_text()
    real = os.stat

    def moved(path: Any, **more: Any) -> os.stat_result:
        found = real(path, **more)
        return os.stat_result((*found[:2], found.st_dev + 1, *found[3:])) if path == site.spool.root else found

    monkeypatch.setattr(os, "stat", moved)
    again = Shared(site.spool, directory, site.spool.scratch)
    assert again.name == first.name
    for each in (first, again):
        each.close()


def test_a_directory_that_is_not_mounted_is_refused(site: Installation, directory: Path) -> None:
    """What has not gone, but cannot be seen, must not count as never begun."""
    Shared(site.spool, directory, site.spool.scratch).close()
    directory.rename(directory.with_name("away"))
    directory.mkdir(mode=0o700)
    with pytest.raises(SpoolUnusable, match="does not have the folder") as caught:
        Shared(site.spool, directory, site.spool.scratch)
    assert "mount it" in caught.value.hint


@pytest.mark.parametrize("path", ["/shared/$(id)", "/shared/'x", "/shared/a b"])
def test_a_path_that_cannot_stand_in_a_script_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match=r"slurm\.directory"):
        Commands(Slurm(directory=Path(path)))


def test_what_others_could_change_is_not_called(tmp_path: Path) -> None:
    """Not the commands, not their configuration, and not this program where it is here."""
    conf, program = tmp_path / "slurm.conf", tmp_path / "bin" / "provisioning"
    program.parent.mkdir()
    called = [tmp_path / "bin" / name for name in ("sbatch", "squeue", "scancel", "srun", "sinfo")]
    settings = Slurm(directory=tmp_path, commands=tmp_path / "bin", conf=conf, program=(str(program),))
    Commands(settings)  # none of them is here: it is as if none were installed
    for path in (conf, program, *called):
        path.touch(0o755)
        Commands(settings)
        path.chmod(0o777)
        with pytest.raises(Refused, match=f"others may write {path}"):
            Commands(settings)
        path.chmod(0o755)
    program.parent.chmod(0o777)
    with pytest.raises(Refused, match="others may write"):
        Commands(settings)


def test_what_asks_for_a_cluster_where_there_is_none_is_refused(site: Installation) -> None:
    with pytest.raises(InvalidManifest, match="t is for Slurm, and no cluster is configured"):
        site.submit([{"id": "t", "operation": "selftest.noop", "executor": "slurm"}])
    site.settings(orchestrator_executor="slurm")
    with pytest.raises(UsageError, match=r"orchestrator\.executor is slurm, and no shared directory is named"):
        site.config  # noqa: B018 - it is read


def test_what_holds_a_target_cannot_be_for_slurm(site: Installation, directory: Path) -> None:
    site.settings(slurm_directory=directory)
    with pytest.raises(InvalidManifest, match=r"trial\.alone holds targets"):
        site.submit(
            [{"id": "t", "operation": "trial.alone", "params": {"name": "x", "script": "true"}, "executor": "slurm"}]
        )


def test_an_orchestrator_says_at_its_start_what_is_wrong_with_the_directory(
    site: Installation, directory: Path
) -> None:
    site.settings(slurm_directory=directory)
    directory.chmod(0o755)
    process = site.start("orchestrator", "run", "--until-empty")
    assert process.wait(30) == Refused.exit_code
    assert "chmod 700" in site.said()


def left_to_a_cluster(site: Installation, directory: Path) -> str:
    """A workflow whose task t is with a Slurm that cannot be asked; its orchestrator is dead."""
    site.settings(slurm_directory=directory, slurm_commands="/nonexistent", slurm_poll_seconds=0.1)
    workflow_id = site.submit([{"id": "t", "operation": "selftest.noop", "executor": "slurm"}])
    process = site.orchestrator()
    wait_for(lambda: site.states(workflow_id) == {"t": "running"})
    process.kill()
    process.wait()
    return workflow_id


def test_an_attempt_is_not_abandoned_with_its_configuration(site: Installation, directory: Path) -> None:
    """Without the cluster's directory nothing is decided of what is with Slurm, and what is new fails plainly."""
    workflow_id = left_to_a_cluster(site, directory)
    del site.environment["PROVISIONING_SLURM_DIRECTORY"]
    site.orchestrator()
    wait_for(lambda: "has no slurm.directory" in site.said(), what=site.said)
    assert site.states(workflow_id) == {"t": "running"}
    assert site.outcomes(workflow_id, "t") == ["None"]


def test_a_checkpoint_that_is_rebuilt_says_that_a_cluster_has_it(site: Installation, directory: Path) -> None:
    """From its order, as it may have neither log nor outcome here yet."""
    site.settings(slurm_directory=directory, slurm_commands="/nonexistent", slurm_poll_seconds=0.1)
    workflow_id = site.submit([{"id": "t", "operation": "selftest.noop", "executor": "slurm"}])
    process = site.orchestrator()
    wait_for(lambda: list(directory.glob(f"*/{workflow_id}/t.1/order.json")))
    process.kill()
    process.wait()
    before = site.task(workflow_id, "t").last
    assert before is not None
    (site.folder(workflow_id).path / "tasks" / "t.json").write_text("{")
    assert site.start("spool", "check", "--repair").wait(30) == 0, site.said()
    after = site.task(workflow_id, "t").last
    assert after is not None
    assert (after.number, after.executor, after.worker, after.outcome) == (1, "slurm", before.worker, None)


def test_what_has_ended_needs_no_cluster(site: Installation, directory: Path) -> None:
    """Where the spool has the outcome, it alone is looked at, whoever could not record it before."""
    workflow_id = left_to_a_cluster(site, directory)
    ended = OutcomeRecord(FORMAT, workflow_id, "t", 1, Outcome.SUCCEEDED, EPOCH, EPOCH, 0)
    site.folder(workflow_id).outcome_path("t", 1).write_bytes(encode(ended))
    del site.environment["PROVISIONING_SLURM_DIRECTORY"]
    site.orchestrator()
    assert site.wait_ended(workflow_id, 30) == "succeeded"


def test_the_order_is_the_request(site: Installation) -> None:
    request = AttemptRequest(Key(WORKFLOW_ID, "t", 1), ("/nu",), {}, {}, {"x": None}, None, None, 1.0, 1, 1)
    decoded = msgspec.json.decode(order_of(request, 10.0))
    assert msgspec.convert(decoded["request"], AttemptRequest) == request
