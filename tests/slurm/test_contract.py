"""What every executor promises, held to by the local one and by a real Slurm alike."""

from __future__ import annotations

import select
from collections.abc import Iterator
from typing import Any

import pytest

from provisioning.clock import boot_id, new_ulid, now
from provisioning.core.states import Outcome, TaskState
from provisioning.core.workflow import FORMAT, Attempt, OutcomeRecord, TaskCheckpoint
from provisioning.execution.executor import AttemptRequest, Executor, Key, News, Seen
from provisioning.execution.nulib import Nulib, entry_command
from provisioning.execution.pool import Pool
from provisioning.execution.process import process_environment
from provisioning.execution.slurm.executor import Slurm
from provisioning.processes import identity
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.logs import tail
from tests.installation import Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

SLOTS = 4
ENDS_SECONDS = 60.0


class Trial:
    """An executor, and the workflow folder in which its attempts are made."""

    def __init__(self, site: Installation, nulib: Nulib, executor: Executor) -> None:
        self.executor, self.site, self._nulib = executor, site, nulib
        self.folder = WorkflowFolder(site.spool.workflows / new_ulid(), site.spool.scratch)
        self.folder.path.mkdir(mode=0o700)
        self.folder.prepare()
        self._heard: dict[Key, News] = {}

    def request(self, task_id: str, operation: str, params: dict[str, Any], **more: Any) -> AttemptRequest:
        """An attempt of that operation."""
        found = self._nulib.catalogue.operation(operation)
        return AttemptRequest(
            **{
                "key": Key(self.folder.workflow_id, task_id, 1),
                "argv": entry_command(self._nulib.nu, self.site.spool, self._nulib.catalogue.digest, operation),
                "environment": process_environment(self.site.config.environment),
                "task_environment": {"PATH": self.site.config.environment.path, "PROVISIONING_TASK": task_id},
                "params": found.filled(params),
                "result_schema": found.result_schema,
                "timeout_seconds": 50.0,
                "grace_seconds": 0.3,
                "log_bytes": 1 << 20,
                "result_bytes": 1 << 20,
                **more,
            }
        )

    def begin(self, task_id: str, operation: str, params: dict[str, Any], **more: Any) -> Key:
        """Start an attempt as an orchestrator does."""
        request = self.request(task_id, operation, params, **more)
        worker = self.executor.assign(request.key, request.argv)
        attempt = Attempt(1, now(), boot_id(), worker)
        self.folder.save_task(TaskCheckpoint(FORMAT, task_id, TaskState.RUNNING, (attempt,)))
        self.executor.start(request)
        return request.key

    def _listen(self, key: Key) -> News | None:
        if select.select([self.executor.descriptor], [], [], 0.05)[0]:
            self._heard |= {news.key: news for news in self.executor.news()}
        return self._heard.get(key)

    def news(self, key: Key) -> News:
        """What the executor says became of the attempt, once its descriptor is readable."""
        found = wait_for(lambda: self._listen(key), ENDS_SECONDS, f"news of {key}")
        assert found is not None
        return found

    def ended(self, key: Key) -> OutcomeRecord:
        """How the attempt ended, as the spool has it by the time that there is news."""
        news = self.news(key)
        assert news.seen is Seen.ENDED, news
        assert news.record is not None
        assert news.record.result is None, "the result is in its file"
        record = self.folder.outcome(key.task_id, 1)
        assert record is not None
        assert record.outcome is news.record.outcome
        return record

    def log(self, task_id: str) -> bytes:
        """What the attempt has said."""
        return tail(self.folder.log_path(task_id, 1), 100)


@pytest.fixture
def trial(request: pytest.FixtureRequest, site: Installation) -> Iterator[Trial]:
    """One of the executors."""
    nulib = site.nulib
    nulib.keep(site.spool)
    made: Executor = Pool(site.spool, SLOTS, 60.0) if request.param == "local" else Slurm(site.spool, site.config.slurm)
    yield Trial(site, nulib, made)
    made.close()


both = pytest.mark.parametrize("trial", ["local", "slurm"], indirect=True)


@both
def test_how_attempts_end(trial: Trial) -> None:
    echo = trial.begin("echo", "selftest.echo", {"value": {"a": [1, "ü"]}})
    fail = trial.begin("fail", "selftest.fail", {"code": "provisioning::trial::broken", "message": "as asked"})
    says = trial.begin("says", "trial.shell", {"script": "echo out; echo err >&2; exit 3"})
    slow = trial.begin("slow", "trial.shell", {"script": "sleep 100"}, timeout_seconds=0.5)
    assert trial.ended(echo).result == {"a": [1, "ü"]}
    failed = trial.ended(fail)
    assert failed.outcome is Outcome.FAILED
    assert failed.error is not None
    assert failed.error.msg == "as asked"
    assert trial.ended(says).exit_code == 3
    assert {b"out", b"err"} <= set(trial.log("says").split())
    assert trial.ended(slow).outcome is Outcome.TIMED_OUT


@both
def test_slots_are_taken_from_the_assignment_to_the_end(trial: Trial) -> None:
    free = trial.executor.free_slots()
    spared = trial.request("spared", "selftest.noop", {})
    trial.executor.assign(spared.key, spared.argv)
    assert trial.executor.free_slots() == free - 1
    trial.executor.withdraw(spared.key)
    assert trial.executor.free_slots() == free
    made = trial.begin("made", "selftest.noop", {})
    assert trial.executor.free_slots() == free - 1
    trial.ended(made)
    assert trial.executor.free_slots() == free


@both
def test_a_cancel_ends_what_runs_and_is_no_failure(trial: Trial) -> None:
    key = trial.begin("t", "trial.shell", {"script": "echo begun; trap 'echo told; exit 1' TERM; sleep 100 & wait"})
    wait_for(lambda: b"begun" in trial.log("t"), ENDS_SECONDS, "its log, while it runs")
    trial.executor.cancel(key)
    assert trial.ended(key).outcome is Outcome.CANCELLED
    assert b"told" in trial.log("t"), "TERM, before KILL"
    trial.executor.cancel(key)  # of one that has ended, it is nothing


@both
def test_one_that_is_cancelled_at_once_has_an_end_all_the_same(trial: Trial) -> None:
    key = trial.begin("t", "trial.shell", {"script": "sleep 100"})
    trial.executor.cancel(key)
    news = trial.news(key)
    begun = news.record is not None and news.record.outcome is Outcome.CANCELLED
    assert begun or news.seen is Seen.NOT_STARTED, news
    assert (trial.folder.outcome("t", 1) is None) is not begun


@both
def test_what_an_attempt_leaves_behind_is_ended(trial: Trial) -> None:
    key = trial.begin("t", "trial.shell", {"script": "sleep 1000 & echo $!"})
    assert trial.ended(key).outcome is Outcome.SUCCEEDED
    pid = int(trial.log("t").split()[0])
    assert identity(pid) is None


@both
def test_a_secret_is_resolved_by_name_and_hidden(trial: Trial) -> None:
    folder = trial.site.root / "credentials"
    folder.mkdir(mode=0o700)
    (folder / "token").touch(0o600)
    (folder / "token").write_text("very-secret-word\n")
    named = {"credentials": {"token": "token"}, "credentials_folder": str(folder)}
    key = trial.begin("t", "trial.secret", {"token": {"credential": "token"}}, **named)
    record = trial.ended(key)
    assert record.outcome is Outcome.SUCCEEDED, record
    assert "very-secret-word" not in str(record)
    assert b"very-secret-word" not in trial.log("t")


@both
def test_what_cannot_be_called_fails_without_a_process(trial: Trial) -> None:
    key = trial.begin(
        "t", "selftest.noop", {}, argv=("/etc/hostname", *trial.request("t", "selftest.noop", {}).argv[1:])
    )
    record = trial.ended(key)
    assert record.outcome is Outcome.FAILED
    assert record.error is not None
    assert record.error.code == "provisioning::attempt::cannot-start"
