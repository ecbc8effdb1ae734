"""The lines that cron gets: quiet while all is well, the end of the failing task's log when not, harmless together."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from provisioning.host.layout import Layout
from provisioning.storage.spool import Spool
from tests.e2e.conftest import PROGRAM


class Crontab:
    """The jobs of the crontab that `install --cron` writes, on a spool of a test's own."""

    def __init__(self, folder: Path) -> None:
        self.spool = folder / "spool"
        Spool.create(self.spool).close()
        layout = Layout(spool=Path("/SPOOL"), cron="ops@example.org")
        lines = layout.texts({})[Path("/etc/cron.d/provisioning")].decode().splitlines()
        self.settings = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith(("#", "*")))
        times = [line for line in lines if line.startswith(("*", "@"))]
        self.jobs = [line.partition("provisioning  ")[2] for line in times]
        self.environment = {
            "HOME": str(folder),
            "SHELL": "/bin/sh",
            "PATH": self.settings["PATH"],
            "PROVISIONING_CACHE": str(folder / "cache"),
            "PROVISIONING_NU": os.environ.get("PROVISIONING_NU", ""),
        }

    def start(self, job: str) -> subprocess.Popen[str]:
        """Run a job as cron does: by sh, with next to no environment; what it says would be mailed."""
        config = self.spool.parent / "config.toml"
        config.touch()
        command = job.replace(str(Path("/opt/provisioning/current/bin/provisioning")), shlex.quote(str(PROGRAM)))
        command = command.replace("/SPOOL", str(self.spool)).replace("/etc/provisioning/config.toml", str(config))
        out = subprocess.PIPE
        return subprocess.Popen(
            ["/bin/sh", "-c", command], env=self.environment, stdout=out, stderr=subprocess.STDOUT, text=True
        )

    def submit(self, *arguments: str) -> str:
        """Put one operation into the queue."""
        return self.say("selftest", *arguments, "--orchestrated")

    def say(self, *arguments: str) -> str:
        """What the program answers to a person."""
        command = [str(PROGRAM), "--spool", str(self.spool), *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()


@pytest.fixture
def crontab(tmp_path: Path) -> Crontab:
    return Crontab(tmp_path)


def test_it_mails_to_whom_it_was_told(crontab: Crontab) -> None:
    assert crontab.settings["MAILTO"] == "ops@example.org"
    assert len(crontab.jobs) == 2


def test_nothing_is_said_while_all_is_well(crontab: Crontab) -> None:
    crontab.submit("echo", "hello")
    for job in crontab.jobs:
        process = crontab.start(job)
        assert (process.communicate(timeout=60)[0], process.returncode) == ("", 0)


def test_the_end_of_the_failing_task_s_log_is_said(crontab: Crontab) -> None:
    manifest = crontab.spool.parent / "manifest.json"
    argv = '["sh", "-c", "for i in 1 2 3; do echo line $i of the log; done; exit 3"]'
    manifest.write_text(
        '{"schema": 1, "name": "nightly", "tasks": [{"id": "a", "operation": "commands.run", '
        f'"params": {{"argv": {argv}}}}}]}}'
    )
    crontab.say("batch", "submit", str(manifest))
    process = crontab.start(crontab.jobs[0])
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert "nightly" in said.splitlines()[0]
    assert "line 3 of the log" in said
    again = crontab.start(crontab.jobs[0])
    assert (again.communicate(timeout=60)[0], again.returncode) == ("", 0), "a failure is told once"


def test_runs_that_overlap_do_each_task_once(crontab: Crontab) -> None:
    marks = crontab.spool.parent / "marks"
    for number in range(6):
        crontab.submit("mark", str(marks), f"line-{number}")
    processes = [crontab.start(job) for job in crontab.jobs * 2]
    assert [(process.communicate(timeout=90)[0], process.returncode) for process in processes] == [("", 0)] * 4
    assert sorted(marks.read_text().split()) == [f"line-{number}" for number in range(6)]
