"""When the shared directory counts as seen by the nodes: commands of ours stand for Slurm's, and nodes answer here."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioning.clock import boottime
from provisioning.execution.remote import answer_probe
from provisioning.execution.slurm import probe
from provisioning.execution.slurm.commands import Commands, Job
from provisioning.execution.slurm.errands import Errands
from provisioning.execution.slurm.notes import Listed, Note, Probed
from provisioning.execution.slurm.probe import Probe
from provisioning.sections import Slurm as Settings
from provisioning.storage.shared import Shared
from tests.installation import Installation
from tests.waiting import wait_for


class Asking:
    """A probe, the commands that it gives, and the partition that these show."""

    def __init__(self, site: Installation, root: Path) -> None:
        self.commands, directory = root / "bin", root / "shared"
        for folder in (self.commands, directory):
            folder.mkdir(mode=0o700, parents=True)
        self.said = root / "said"
        self.said.touch()
        for name in ("sbatch", "scancel"):
            self.command(name, f'echo "{name} $*" >> {self.said}')
        self.has("trial*|n1", "trial*|n2", "other|n3")
        self.notes: queue.SimpleQueue[Note] = queue.SimpleQueue()
        self.shared = Shared(site.spool, directory, site.spool.scratch)
        self._errands = Errands(self.notes)
        self.probe = self.another()

    def another(self, partition: str = "") -> Probe:
        """A probe of its own, as the next process has."""
        settings = Settings(directory=self.shared.directory, commands=self.commands, partition=partition)
        return Probe(self.shared, Commands(settings), self._errands)

    def command(self, name: str, script: str) -> None:
        (self.commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.commands / name).chmod(0o700)

    def has(self, *lines: str) -> None:
        """Have sinfo say this."""
        self.command("sinfo", f"cat <<'end'\n{chr(10).join(lines)}\nend")

    def begin(self) -> Path:
        """Have the job queued; the folder in which its nodes answer."""
        self.probe.begin()
        note = self.notes.get(timeout=20)
        assert isinstance(note, Probed)
        self.probe.heed(note)
        self._job = note.job
        return self.shared.root / "probe" / note.job.rpartition(".")[2]

    def judge(self, job: Job | None = None) -> bool:
        """Have what there is judged, with this job in the queue under the name of the probe; whether it has passed."""
        self.probe.judge(Listed(boottime(), {self._job: job} if job else {}))
        return self.probe.passed

    def close(self) -> None:
        self._errands.dismiss()
        self.shared.close()


@pytest.fixture
def asking(site: Installation, tmp_path: Path) -> Iterator[Asking]:
    made = Asking(site, tmp_path / "asking")
    yield made
    made.close()


def test_both_nodes_must_answer(asking: Asking) -> None:
    folder = asking.begin()
    assert "--nodes=2" in asking.said.read_text()
    answer_probe(folder)
    assert not asking.judge(Job("RUNNING", "None")), "the other may answer yet"
    answer_probe(folder)
    assert asking.judge(Job("RUNNING", "None"))
    assert not folder.parent.exists(), "nothing is left of it"
    assert asking.another().passed, "the next start does not ask again"


def test_one_answer_of_two_is_none(asking: Asking) -> None:
    folder = asking.begin()
    answer_probe(folder)
    (folder / "said").write_text("srun: error: n2: no such folder\n")
    assert not asking.judge()
    assert asking.probe.reason == "1 of 2 nodes answered in the shared directory: srun: error: n2: no such folder"
    assert not folder.exists()
    wait_for(lambda: f"--name={asking.shared.name}.probe.{folder.name}" in asking.said.read_text(), what="scancel")
    assert not asking.another().passed


def test_two_that_are_not_free_are_asked_again_later(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = asking.begin()
    assert not asking.judge(Job("PENDING", "Resources"))
    assert asking.probe.reason.endswith("pending: Resources")
    monkeypatch.setattr(probe, "QUEUED_SECONDS", 0.0)
    monkeypatch.setattr(probe, "AGAIN_SECONDS", 0.0)
    assert not asking.judge(Job("PENDING", "Resources"))
    assert "2 nodes were not free at once" in asking.probe.reason
    assert not folder.exists()
    wait_for(lambda: "scancel" in asking.said.read_text(), what="scancel")


@pytest.mark.parametrize("lines", [("trial*|n1", "other|n2", "other|n3"), ("trial|n1", "other|n2", "more*|n3")])
def test_a_partition_of_one_node_may_pass_with_it(
    asking: Asking, caplog: pytest.LogCaptureFixture, lines: tuple[str, ...]
) -> None:
    asking.has(*lines)
    asking.probe = asking.another(partition="" if lines[0].startswith("trial*") else "trial")
    folder = asking.begin()
    assert "--nodes=1" in asking.said.read_text()
    answer_probe(folder)
    with caplog.at_level(logging.INFO):
        assert asking.judge()
    assert "the partition has no other" in caplog.text


def test_what_slurm_refuses_is_said(asking: Asking) -> None:
    asking.command("sbatch", "echo 'sbatch: error: Invalid account' >&2; exit 1")
    folder = asking.begin()
    assert asking.probe.reason == "sbatch: Invalid account"
    assert not folder.exists()
