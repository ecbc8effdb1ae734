"""One attempt: what its process finds around it, how it is ended, and what its outcome says."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from provisioning.core.workflow import OutcomeRecord
from provisioning.execution.attempt import Attempts, NotStarted
from provisioning.execution.executor import AttemptRequest, Key
from provisioning.execution.running import Running
from provisioning.processes import identity
from provisioning.storage.files import Scratch
from tests.installation import Gate, Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

HOSTILE_ENVIRONMENT = {
    "PYTHONPATH": "/nonexistent/injected",
    "PYTHONWARNINGS": "ignore",
    "NU_LIB_DIRS": "/nonexistent/injected",
    "NU_LOG_LEVEL": "injected",
    "_PYI_ARCHIVE_FILE": "/nonexistent/injected",
    "BASH_ENV": "/nonexistent/injected",
    "ENV": "/nonexistent/injected",
    "SECRET_OF_THE_PARENT": "injected",
}


@pytest.fixture
def preloaded(tmp_path: Path) -> str:
    """A library that LD_PRELOAD can name: one that the loader accepts and that changes nothing."""
    found = [*Path("/lib").glob("*/libdl.so.2"), *Path("/lib64").glob("libdl.so.2")]
    if not found:
        pytest.skip("no libdl.so.2 to preload")
    return str(found[0])


def shell(task_id: str, script: str, **more: Any) -> dict[str, Any]:
    """A task that runs a script and must not be run twice."""
    return {"id": task_id, "operation": "trial.shell", "params": {"script": script}, **more}


def run_script(site: Installation, script: str, **more: Any) -> OutcomeRecord:
    """Run one script as a task; the published outcome of its first attempt."""
    return site.outcome(site.run([shell("t", script, **more)]), "t")


def surroundings(site: Installation, environment: dict[str, str]) -> dict[str, Any]:
    """What an operation tells of its process, run by an orchestrator with this environment."""
    workflow_id = site.submit([{"id": "t", "operation": "trial.surroundings"}])
    process = site.start("orchestrator", "run", "--until-empty", environment=environment)
    assert process.wait(30) == 0, site.said()
    result: dict[str, Any] = site.outcome(workflow_id, "t").result
    return result


def test_the_environment_is_what_the_config_says(site: Installation, preloaded: str) -> None:
    site.settings(environment_tz="Etc/UTC", environment_https_proxy="http://proxy:1", environment_path="/usr/bin:/bin")
    found = surroundings(site, {**HOSTILE_ENVIRONMENT, "LD_PRELOAD": preloaded, "LD_LIBRARY_PATH": "/nonexistent"})
    assert dict(line.split("=", 1) for line in found["environ"]) == {
        "PATH": "/nonexistent",
        "HOME": str(site.root),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "TZ": "Etc/UTC",
        "https_proxy": "http://proxy:1",
    }
    child = dict(line.split("=", 1) for line in found["child_environ"])
    assert child["PATH"] == "/usr/bin:/bin"
    assert child["PROVISIONING_TASK"] == "t"
    assert child["PROVISIONING_ATTEMPT"] == "1"
    assert child["PROVISIONING_IDEMPOTENCY_KEY"] == f"{child['PROVISIONING_WORKFLOW']}/t"
    of_nushell = {"PWD", "NU_VERSION", "FILE_PWD", "CURRENT_FILE", "PROCESS_PATH"}  # which it tells its children
    task = {name for name in child if name.startswith("PROVISIONING_")}
    assert child.keys() - of_nushell - task <= {"PATH", "HOME", "LANG", "NO_COLOR", "TZ", "https_proxy"}
    assert "injected" not in "".join(child.values())
    assert not [name for name in child if name.startswith(("LD_", "PYTHON", "_PYI_"))]


def test_the_process_has_its_own_group_folder_and_limits(site: Installation) -> None:
    before = os.umask(0o022)
    try:
        found = surroundings(site, {})
    finally:
        os.umask(before)
    fields = found["stat"].rpartition(")")[2].split()
    assert int(fields[2]) == found["pid"], "it leads its own process group"
    assert int(fields[3]) not in (os.getsid(0), found["pid"]), "its session is its worker's"
    assert found["cwd"] == "/"
    assert "Umask:\t0077" in found["status"]
    assert "SigBlk:\t0000000000000000" in found["status"]
    assert [line.split()[4:6] for line in found["limits"].splitlines() if line.startswith("Max core")] == [["0", "0"]]


def test_only_the_attempt_s_descriptors_are_inherited(site: Installation) -> None:
    found = surroundings(site, {})
    child = dict(line.split(" ", 1) for line in found["child"])
    assert child.keys() - {"6"} == {"0", "1", "2", "3", "4", "5"}, child  # 6 may be the shell's own substitution
    assert not [target for number, target in child.items() if target.startswith("socket:")]
    assert child["3"].startswith("pipe:"), "the request, read to its end"
    assert child["4"].startswith("/memfd:reply")
    assert child["5"].endswith("/logs/t.1.log")
    own = dict(line.split(" ", 1) for line in found["own"])
    foreign = [target for number, target in own.items() if int(number) > 5 and target.startswith(("/", "socket:"))]
    assert [target for target in foreign if not target.startswith(("/proc/", "/dev/"))] == [], own


def test_a_timeout_ends_the_group(site: Installation) -> None:
    record = run_script(site, "exec sleep 60", timeout="200ms")
    assert (record.outcome, record.error and record.error.code) == ("timed_out", "provisioning::attempt::timeout")
    assert record.leftovers == ()


def test_who_ignores_term_is_killed_after_the_grace(site: Installation) -> None:
    pid = site.root / "pid"
    record = run_script(site, f"trap '' TERM; echo $$ > {pid}; while :; do sleep 0.05; done", timeout="300ms")
    assert record.outcome == "timed_out"
    assert identity(int(pid.read_text())) is None
    assert (record.ended_at - record.started_at).total_seconds() > 0.3


def test_stopped_children_are_ended(site: Installation) -> None:
    pid = site.root / "pid"
    record = run_script(site, f"sh -c 'echo $$ > {pid}; kill -STOP $$'; exit", timeout="300ms")
    assert record.outcome == "timed_out"
    assert identity(int(pid.read_text())) is None


def test_a_stopped_group_is_ended(site: Installation) -> None:
    """TERM is not delivered to a stopped process before it goes on: Nushell itself is stopped here as well."""
    record = run_script(site, "kill -STOP 0", timeout="300ms")
    assert (record.outcome, record.signal) == ("timed_out", signal.SIGTERM)


def test_a_child_left_in_the_background_is_ended_and_named(site: Installation) -> None:
    pid = site.root / "pid"
    record = run_script(site, f"sleep 60 & echo $! > {pid}")
    assert record.outcome == "succeeded"
    assert record.leftovers == (int(pid.read_text()),)
    assert identity(int(pid.read_text())) is None


def test_a_grandchild_in_its_own_session_is_ended_and_named(site: Installation) -> None:
    """Outside the group, it shows by the attempt's lock, which it has inherited."""
    pid = site.root / "pid"
    script = f"setsid sh -c 'echo $$ > {pid}; exec sleep 60' & while [ ! -s {pid} ]; do :; done"
    workflow_id = site.run([shell("t", script)])
    assert site.state(workflow_id) == "succeeded"
    assert identity(int(pid.read_text())) is None
    assert f"were ended: {pid.read_text().strip()}" in site.said()


def test_a_grandchild_with_stdout_does_not_hold_up_the_attempt(site: Installation) -> None:
    pid = site.root / "pid"
    script = f"setsid sh -c 'exec 5>&-; echo $$ > {pid}; exec sleep 60' & while [ ! -s {pid} ]; do :; done; echo said"
    workflow_id = site.run([shell("t", script)])
    process = identity(int(pid.read_text()))
    assert process is not None, "without the log it is no part of the attempt"
    os.kill(process.pid, signal.SIGKILL)
    assert site.state(workflow_id) == "succeeded"
    assert site.log(workflow_id, "t") == b"said\n"


@pytest.mark.parametrize(
    ("how", "code", "exit_code"),
    [
        ("long", "result-too-large", 0),
        ("mismatch", "result-mismatch", 0),
        ("garbage", "result-unreadable", 0),
        ("exit", "no-result", 0),
        ("kill", "killed", None),
    ],
)
def test_an_answer_that_is_none(site: Installation, how: str, code: str, exit_code: int | None) -> None:
    workflow_id = site.run([{"id": "t", "operation": "trial.reply", "params": {"how": how}}])
    record = site.outcome(workflow_id, "t")
    assert (record.outcome, record.exit_code) == ("failed", exit_code)
    assert record.error is not None
    assert record.error.code == f"provisioning::attempt::{code}"
    assert record.result is None


def test_an_exit_code_is_kept(site: Installation) -> None:
    workflow_id = site.run(
        [
            {"id": "a", "operation": "selftest.fail", "params": {"exit": 75}},
            shell("b", "exit 9"),
        ],
        on_failure="continue",
    )
    assert [site.outcome(workflow_id, task).exit_code for task in "ab"] == [75, 9]


def test_output_beyond_the_cap_keeps_its_head_and_its_end(site: Installation) -> None:
    site.settings(limits_log_bytes=200_000)
    workflow_id = site.run([shell("t", "echo begin; yes | head -c 3000000; echo end >&2")])
    record, log = site.outcome(workflow_id, "t"), site.log(workflow_id, "t")
    assert record.outcome == "succeeded"
    assert log.startswith(b"begin\n")
    assert log.endswith(b"end\n")
    assert len(log) == record.log_bytes < 201_000
    assert record.log_bytes + record.log_dropped_bytes >= 3_000_000
    assert b"bytes of output left out here" in log


def test_nushell_that_cannot_be_started_fails_the_attempt(site: Installation) -> None:
    """Between the catalogue's look at nu and the start it may go away."""
    nu = site.root / "nu"
    nu.symlink_to(Path(site.environment["PROVISIONING_NU"]).resolve())
    site.settings(nu=nu, orchestrator_standby_processes=0)  # one that waits was started before
    workflow_id = site.submit([shell("a", f"rm {nu}"), {"id": "b", "operation": "selftest.noop", "after": ["a"]}])
    site.start("orchestrator", "run", "--until-empty").wait(30)
    assert site.states(workflow_id)["a"] == "succeeded"
    assert site.states(workflow_id).get("b", "pending") in ("failed", "pending"), site.said()


def test_a_host_without_a_descriptor_to_spare_fails_no_attempt(site: Installation) -> None:
    """Nothing of it has begun: it is made again, and counts for nothing."""
    site.orchestrator(slots=1)
    assert site.wait_ended(site.submit([shell("first", "true")])) == "succeeded"
    (worker,) = site.workers()
    usual = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (18, usual[1]))
    workflow_id = site.submit([shell("t", "true")])
    wait_for(lambda: site.states(workflow_id) and site.outcomes(workflow_id, "t") == ["not_started"])
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, usual)
    assert site.wait_ended(workflow_id) == "succeeded"


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY])
def test_a_start_that_the_host_refuses_for_now_gives_back_what_was_opened(
    site: Installation, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_args: object, **_more: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_spawn", refuse)
    scratch = Scratch(site.spool.tmp / "worker")
    request = AttemptRequest(Key("01kc0000000000000000000001", "a", 1), ("/nu",), {}, {}, {}, None, None, 1.0, 1, 1)
    attempts = Attempts(scratch, Mock())
    before = os.listdir("/proc/self/fd")
    log = os.open(site.root / "log", os.O_RDWR | os.O_CREAT, 0o600)
    with pytest.raises(NotStarted, match=re.escape(os.strerror(number))):
        attempts._see_through(Running(request, None, log), Mock())
    os.close(log)
    assert os.listdir("/proc/self/fd") == before
    attempts.close()
    scratch.close()


def test_a_slot_is_free_when_the_process_has_ended(site: Installation, gate: Callable[[str], Gate]) -> None:
    """One slot, while a process that left the group still holds the first task's log."""
    first = gate("first")
    pid = site.root / "pid"
    site.settings(limits_grace_seconds=20)
    holder = f"setsid sh -c 'trap \"\" TERM; echo $$ > {pid}; while :; do sleep 0.05; done'"
    script = f"{holder} & while [ ! -s {pid} ]; do :; done"
    workflow_id = site.submit([shell("a", script), shell("b", first.script)])
    site.orchestrator(slots=1)
    first.reached()
    assert identity(int(pid.read_text())) is not None, "what a left behind still lives, and b runs"
    os.kill(int(pid.read_text()), signal.SIGKILL)
    first.open()
    assert site.wait_ended(workflow_id) == "succeeded"


def test_the_lock_of_the_log_is_free_after_the_end(site: Installation) -> None:
    workflow_id = site.run([shell("t", "true")])
    log = site.folder(workflow_id).log_path("t", 1)
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    assert str(log.stat().st_ino) not in {fields[5].rsplit(":", 1)[1] for fields in locks if fields[1] == "FLOCK"}
