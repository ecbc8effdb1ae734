"""ENOSPC, EIO, EDQUOT at every call that changes the spool, once and for good: of submit, orchestrator and workers.

Nobody ends with a traceback or says more than is on the disk, and without the errors the end is the undisturbed one.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from provisioning.execution.nulib import load_nulib
from provisioning.storage.check import check
from tests.crash.sweep import MissedError, spread, sweep
from tests.crash.tracing import (
    Call,
    Tracing,
    calls_of,
    changes,
    ended,
    injection,
    let_workers_be,
    likened,
    logs_of,
    may_trace,
    start_traced,
    traced,
)
from tests.crash.undisturbed import RUN, Undisturbed, judged
from tests.crash.workload import worked
from tests.figures import Figures
from tests.installation import Installation
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.nu,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not may_trace(), reason="strace is missing or may not trace"),
]

ERRORS = ("ENOSPC", "EIO", "EDQUOT")
ONCE, FOR_GOOD = "", "+"
TIMES = [pytest.param(ONCE, id="once"), pytest.param(FOR_GOOD, id="for-good")]
BESIDE = (0, 0, 1, -1, 2, -2, 3, -3, 4, -4, 6, -6, 8, -8, -16, -32, -64)
"""Which calls are tried in turn, where the one of that number was beside the spool this time, or never came."""
ACCEPTED, UNUSABLE = 0, 6
TOLD_TOO_LATE = -signal.SIGTERM
"""The exit code of an orchestrator that is told to stop when it has nothing left but to exit."""


def one_in(share: int) -> pytest.MarkDecorator:
    """Of the points of a sweep, one in so many is tried, and all in the long run."""
    long = pytest.param(1, marks=pytest.mark.long, id="all")
    return pytest.mark.parametrize("share", [pytest.param(share, id=f"one-in-{share}"), long])


class Error(NamedTuple):
    """An error that a process is given instead of the call, and all after it of that name if `times` says so."""

    call: Call
    error: str
    times: str

    @property
    def inject(self) -> tuple[str, ...]:
        """The strace option for it."""
        return injection(self.call, f"error={self.error}", times=self.times)

    def beside(self, distance: int) -> Error:
        """The same error at a call beside that one."""
        return self._replace(call=self.call._replace(number=max(1, self.call.number + distance)))

    def likened(self, log: Path) -> Error:
        """The same error at the call of another run that was like this one."""
        return self._replace(call=likened(self.call, log))


def errors_at(calls: list[Call], share: int, times: str) -> list[Error]:
    """One of the errors at each of the calls, in turn; locks fail otherwise, and reading needs no disk space."""
    written = [call for call in calls if call.name != "flock" and not (call.name == "openat" and times)]
    written.sort(key=lambda call: call.name)  # so that a share has something of each
    points = zip(spread(written, share), itertools.cycle(ERRORS), strict=False)
    return [Error(call, error, times) for call, error in points]


def injected(log: Path) -> list[Call]:
    """The calls that were made to fail."""
    return [call for call in calls_of(log) if call.injected]


def nobody_crashed(site: Installation) -> None:
    """Whether what went wrong was said in words of ours."""
    said = site.said()
    assert "Traceback" not in said, said
    assert "internal error" not in said, said


def met_the_spool(log: Path, spool: Path) -> bool:
    """Whether the first call that failed is one that changes the spool."""
    return any(changes(call, spool) for call in injected(log)[:1])


MET = Figures(struck=1, aimed=1)
"""That one process was given errors, the first at a call that changes the spool."""


# Submit


def submission(site: Installation, **head: Any) -> Path:
    """A manifest of one task that must not be done twice."""
    path = site.root / "trial.json"
    path.write_text(json.dumps({"schema": 1, "name": "trial", **head, "tasks": [site.mark("once")]}))
    return path


def submit(
    site: Installation, manifest: Path, before: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`batch submit` as a person types it, below the command `before`; returns when a strace on it has ended too."""
    command = [*before, sys.executable, "-m", "provisioning", "batch", "submit", str(manifest)]
    environment = {**site.environment, **(environment or {})}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def submitting_calls(root: Path, cache_dir: Path, **head: Any) -> list[Call]:
    """What an undisturbed submission does to the spool."""
    root.mkdir()
    site = Installation(root, cache_dir)
    load_nulib(site.config)  # cached from now on: a cold one makes files of its own
    log = root / "submit"
    assert submit(site, submission(site, **head), *traced(log)).returncode == ACCEPTED
    site.close()
    return [call for call in calls_of(log) if changes(call, site.spool.root)]


@pytest.mark.parametrize("head", [pytest.param({}, id="without-id"), pytest.param({"id": "nightly"}, id="with-id")])
@pytest.mark.parametrize("times", TIMES)
@one_in(5)
def test_submit_on_a_failing_disk(
    cache_dir: Path, tmp_path: Path, head: dict[str, str], share: int, times: str
) -> None:
    """Accepted means that it is there and will be done; refused means that it may be submitted again."""

    def trial(error: Error, root: Path) -> Figures:
        root.mkdir()
        site = Installation(root, cache_dir)
        log = root / "submit"
        manifest = submission(site, **head)
        first = submit(site, manifest, *traced(log, *error.inject))
        assert met_the_spool(log, site.spool.root), injected(log)
        assert "Traceback" not in first.stderr, first.stderr
        if first.returncode == ACCEPTED:
            assert site.spool.workflow_ids() == [first.stdout.strip()]
        else:
            assert (first.returncode, first.stdout) == (UNUSABLE, ""), first
            assert site.spool.workflow_ids() == [], f"refused, and there all the same\n{first.stderr}"
        if head or first.returncode != ACCEPTED:
            again = submit(site, manifest)
            assert again.returncode == ACCEPTED, again
            assert site.spool.workflow_ids() == [again.stdout.strip()]
        site.drain(max_wait=15)
        assert [site.state(workflow_id) for workflow_id in site.spool.workflow_ids()] == ["succeeded"], site.said()
        assert site.mark_lines() == ["once"]
        assert check(site.spool.root) == []
        site.close()
        return MET

    calls = submitting_calls(tmp_path / "undisturbed", cache_dir, **head)
    if times:  # the first write that fails is the last one to the spool; for good, nothing could be said either
        calls = [call for call in calls if call.name != "write"]
    sweep(f"submit, {'for good' if times else 'once'}", errors_at(calls, share, times), trial, tmp_path)


def test_a_stderr_that_takes_nothing_changes_no_exit_code(cache_dir: Path, tmp_path: Path) -> None:
    site = Installation(tmp_path, cache_dir)
    command = [sys.executable, "-m", "provisioning", "batch", "submit", "not-there.toml"]
    with open("/dev/full", "wb") as full:
        assert subprocess.run(command, env=site.environment, stderr=full, timeout=60, check=False).returncode == 4
    site.close()


# Orchestrator and workers


def met(site: Installation) -> Path | None:
    """The log of a process that was given an error."""
    return next(filter(injected, sorted(logs_of(site).iterdir())), None)


def stopped(site: Installation, process: subprocess.Popen[bytes]) -> None:
    """Wait until somebody was given an error, stop the orchestrator, and let the disk be whole again."""
    wait_for(lambda: process.poll() is not None or met(site), 60, "an error")
    if process.poll() is None:
        process.terminate()
    process.wait(60)
    let_workers_be(site)


@pytest.mark.parametrize("times", TIMES)
@one_in(40)
def test_orchestrator_on_a_failing_disk(
    undisturbed: Undisturbed, cache_dir: Path, tmp_path: Path, share: int, times: str
) -> None:
    """Once: it goes on by itself. For good: it is stopped, and the next one goes on."""

    def trial(error: Error, root: Path) -> Figures:
        for n, distance in enumerate(BESIDE):
            with worked(root / str(n), cache_dir) as work:
                site = work.site
                site.settings(orchestrator_drain_seconds=1)
                run = start_traced(site, Tracing(error.beside(distance).inject), *RUN)
                if times:
                    stopped(site, run)
                code = ended(site, run)
                if met_the_spool(logs_of(site) / "orchestrator", site.spool.root):
                    assert code in (0, 1, UNUSABLE) or (times and code == TOLD_TOO_LATE), site.said()
                    nobody_crashed(site)
                    return judged(work, undisturbed) + MET
                if not injected(logs_of(site) / "orchestrator"):
                    error = error.likened(logs_of(site) / "orchestrator")
        raise MissedError("no error was met at the spool")

    calls = undisturbed.calls["orchestrator"]
    if times:
        # For good, writes to the pipes of its workers would fail too, which no full disk does; tests/integration/
        # test_full_disk.py fills a real disk, tests/simulation/test_errors.py fails the writes of files alone. And the
        # interpreter could not remove the folder under /tmp of its forkserver, which it says by a traceback.
        calls = [call for call in calls if call.name not in ("write", "rmdir")]
    points = errors_at(calls, share, times)
    sweep(f"orchestrator, {'for good' if times else 'once'}", points, trial, tmp_path)


@pytest.mark.parametrize("times", TIMES)
@one_in(25)
def test_worker_on_a_failing_disk(
    undisturbed: Undisturbed, cache_dir: Path, tmp_path: Path, share: int, times: str
) -> None:
    """Once: the first worker. For good: every worker, until the orchestrator is stopped and the disk is whole again.

    An attempt whose record meets EIO is unknown, and three such are a failure: so that one only comes once.
    """

    def trial(error: Error, root: Path) -> Figures:
        if times and error.error == "EIO":
            error = error._replace(error="ENOSPC")
        for n, distance in enumerate(BESIDE):
            with worked(root / str(n), cache_dir) as work:
                site = work.site
                site.settings(orchestrator_drain_seconds=1)
                tracing = Tracing(None, error.beside(distance).inject, "every" if times else "1")
                run = start_traced(site, tracing, *RUN)
                if times:
                    stopped(site, run)
                code = ended(site, run)
                log = met(site)
                if log and met_the_spool(log, site.spool.root):
                    assert code in (0, 1) or (times and code == TOLD_TOO_LATE), site.said()
                    nobody_crashed(site)
                    return judged(work, undisturbed) + MET
                if not log:
                    error = error.likened(logs_of(site) / "worker.1")
        raise MissedError("no error was met at the spool")

    points = errors_at(undisturbed.calls["worker.1"], share, times)
    sweep(f"worker, {'for good' if times else 'once'}", points, trial, tmp_path)
