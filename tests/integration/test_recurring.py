"""The examples of `packaging/recurring`, run as cron and at run them, and runs of which there is one at a time."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

FOLDER = ROOT / "packaging" / "recurring"
FIELD = r"(\*|[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)(/[0-9]+)?"
LINE = re.compile(rf"(?P<when>{FIELD}( {FIELD}){{4}})  (?P<user>[a-z]+)  (?P<command>\S.*)")
VARIABLE = re.compile(r"([A-Z_]+)=(\S*)")


def jobs() -> list[str]:
    """The commands of the crontab."""
    lines = [line for line in (FOLDER / "crontab").read_text().splitlines() if line and not line.startswith("#")]
    found = [LINE.fullmatch(line) for line in lines if not VARIABLE.fullmatch(line)]
    assert all(found), f"cron would not take one of {lines}"
    return [match["command"] for match in found if match]


class Cron:
    """Runs jobs as cron and at do: by sh, with next to no environment; what they say would be mailed."""

    def __init__(self, site: Installation) -> None:
        self.site = site
        programs = site.root / "bin"
        programs.mkdir()
        (programs / "provisioning").write_text(f'#!/bin/sh\nexec {" ".join(site.program)} "$@"\n')
        (programs / "at").write_text('#!/bin/sh\ntest "$1" = 02:00 && exec sh\n')
        for path in programs.iterdir():
            path.chmod(0o755)
        self.environment = {**site.environment, "PATH": f"{programs}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
        self.environment["SHELL"] = "/bin/sh"
        self.manifests({"id": "a", "operation": "selftest.noop"})

    def manifests(self, task: dict[str, object]) -> None:
        """What the manifests of all jobs ask for."""
        for name in ("nightly", "weekly"):
            path = self.site.root / f"{name}.toml"
            params = json.dumps(task.get("params", {})).replace('": ', '" = ')
            said = f'schema = 1\nname = "{name}"\n[[tasks]]\nid = "a"\noperation = "{task["operation"]}"\n'
            path.write_text(f"{said}params = {params}\n")

    def start(self, *argv: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            argv,
            env=self.environment,
            cwd=self.site.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> tuple[int, str]:
        """The exit code of a job, and the mail."""
        process = self.start("/bin/sh", "-c", command.replace("/etc/provisioning", str(self.site.root)))
        said = process.communicate(timeout=60)[0]
        return process.returncode, said


@pytest.fixture
def cron(site: Installation) -> Cron:
    return Cron(site)


def test_cron_takes_the_lines_and_the_readme_has_them() -> None:
    text = (FOLDER / "crontab").read_text()
    assert not re.search(r"(?<!\\)%", "\n".join(jobs())), "cron reads % as the end of the command"
    assert {name for name, _ in VARIABLE.findall(text)} >= {"MAILTO", "PATH"}
    readme = (ROOT / "README.md").read_text()
    shown = [line for line in readme.splitlines() if LINE.fullmatch(line)]
    assert len(shown) >= 2
    assert set(shown) <= set(text.splitlines())
    assert os.access(FOLDER / "at.sh", os.X_OK)


def test_nothing_is_mailed_while_all_is_well(cron: Cron) -> None:
    cron.site.orchestrator()
    submitting = [command for command in jobs() if "batch submit" in command]
    assert [cron.run(command) for command in submitting] == [(0, "")] * len(submitting)
    assert cron.site.start("orchestrator", "stop").wait(60) == 0, cron.site.said()
    others = [command for command in jobs() if command not in submitting]
    assert [cron.run(command) for command in others] == [(0, "")] * len(others)
    assert [cron.site.state(name) for name in cron.site.spool.claimed_ids()] == ["succeeded"] * len(submitting)


def test_what_went_wrong_is_mailed(cron: Cron) -> None:
    cron.manifests({"operation": "commands.run", "params": {"argv": ["sh", "-c", "echo a line of it; exit 3"]}})
    code, mail = cron.run(jobs()[0])
    assert (code, "a line of it" in mail, "nightly" in mail) == (1, True, True)
    cron.site.orchestrator()
    code, mail = cron.run(next(command for command in jobs() if "--wait" in command and "weekly" in command))
    assert (code, "a line of it" in mail) == (1, True)
    (cron.site.root / "nightly.toml").write_text("schema = 2\n")
    code, mail = cron.run(jobs()[0])
    assert (code, "nightly.toml:1" in mail) == (3, True), "nothing is run where nothing was submitted"


def test_once_by_at(cron: Cron) -> None:
    name = 'it\'s "odd" $(x).toml'
    (cron.site.root / "nightly.toml").rename(cron.site.root / name)
    process = cron.start(str(FOLDER / "at.sh"), name, "02:00")
    assert (process.communicate(timeout=60)[0], process.returncode) == ("", 0)
    assert [cron.site.state(each) for each in cron.site.spool.claimed_ids()] == ["succeeded"]


def test_one_at_a_time(cron: Cron, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    site = cron.site
    workflow_id = site.submit([{"id": "a", "operation": "trial.again", "params": {"script": gate.script}}])
    alone = next(command for command in jobs() if "--lock-wait 0" in command)
    first = cron.start("/bin/sh", "-c", alone)
    gate.reached()
    record = site.spool.running_orchestrator()
    assert record is not None, "who works alone is the orchestrator meanwhile"
    assert cron.run(alone) == (7, ""), "another works: that is no news"
    waiting = cron.start("provisioning", "orchestrator", "run", "--until-empty", "--lock-wait", "60")
    refused = cron.run("provisioning orchestrator run --lock-wait 0.1")
    assert (refused[0], f"pid {record.process.pid}" in refused[1]) == (6, True)
    assert waiting.poll() is None
    gate.open()
    gate.close()
    assert (first.communicate(timeout=60)[0], first.returncode) == ("", 0)
    assert (waiting.communicate(timeout=60)[0], waiting.returncode) == ("", 0)
    assert site.state(workflow_id) == "succeeded"
    wait_for(lambda: site.spool.running_orchestrator() is None, what="the end of both")
