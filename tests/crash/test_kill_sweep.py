"""kill -9 at every system call that changes the spool; then another orchestrator: the end is that of no kill.

What may differ is what was promised: an attempt that was cut off is *unknown*, and its task does what `on_interrupt`
says. Each point asserts that somebody was killed; what the promises are is in `workload`.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.crash.sweep import MissedError, spread, sweep
from tests.crash.tracing import (
    Call,
    Tracing,
    calls_of,
    changes,
    ended,
    injection,
    likened,
    logs_of,
    may_trace,
    start_traced,
    was_killed,
)
from tests.crash.undisturbed import RUN, Undisturbed, judged
from tests.crash.workload import Work, worked
from tests.figures import Figures

pytestmark = [
    pytest.mark.nu,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not may_trace(), reason="strace is missing or may not trace"),
]

TENTH_OR_ALL = [pytest.param(10, id="tenth"), pytest.param(1, marks=pytest.mark.long, id="all")]
"""Of the points of a sweep, one in so many is tried."""
SAMPLES = [pytest.param(6, id="6"), pytest.param(60, marks=pytest.mark.long, id="60")]
SEED = 20260101
KILL = "signal=KILL"


def killed(work: Work, undisturbed: Undisturbed, *names: str) -> Figures:
    """What has become of the work after these processes, by the names of their logs, were killed."""
    last = [list(calls_of(logs_of(work.site) / name))[-1] for name in names]
    aimed = sum(changes(call, work.site.spool.root) for call in last)
    return judged(work, undisturbed) + Figures(struck=len(names), aimed=aimed)


def test_the_undisturbed_run_is_what_the_tasks_say(undisturbed: Undisturbed) -> None:
    main = undisturbed.ends["main"]
    assert {name: end.state for name, end in undisturbed.ends.items()} == {
        "main": "failed",
        "cancelled": "cancelled",
        "small": "succeeded",
        "undone": "rolled_back",
    }
    assert undisturbed.ends["undone"].tasks["made"].state == "undone"
    assert main.tasks["flaky"].outcomes == ("failed", "succeeded")
    assert main.tasks["slow"].outcomes == ("timed_out",)
    assert main.tasks["never"].state == "skipped"
    made = {call.name.removesuffix("at") for calls in undisturbed.calls.values() for call in calls}
    assert made >= {"open", "write", "fsync", "rename", "link", "unlink", "mkdir", "rmdir", "fallocate"}


@pytest.mark.parametrize("share", [pytest.param(20, id="twentieth"), pytest.param(1, marks=pytest.mark.long, id="all")])
def test_orchestrator_killed(undisturbed: Undisturbed, cache_dir: Path, tmp_path: Path, share: int) -> None:
    """Its workers, and what they run, go on.

    How many calls there are depends on how often it looks: where it ended before that one came, it is tried again at
    the one that was like it.
    """

    def trial(call: Call, root: Path) -> Figures:
        for chance, earlier in enumerate((0, 0, 1, 4, 16)):
            aim = call._replace(number=max(1, call.number - earlier))
            with worked(root / str(chance), cache_dir) as work:
                run = start_traced(work.site, Tracing(injection(aim, KILL)), *RUN)
                if ended(work.site, run) == -signal.SIGKILL:
                    return killed(work, undisturbed, "orchestrator")
                call = likened(call, logs_of(work.site) / "orchestrator")
        raise MissedError("nobody was killed")

    sweep("orchestrator killed", spread(undisturbed.calls["orchestrator"], share), trial, tmp_path)


@pytest.mark.parametrize("share", TENTH_OR_ALL)
def test_orchestrator_killed_while_it_publishes_operations(
    undisturbed: Undisturbed, cache_dir: Path, tmp_path: Path, share: int
) -> None:
    """The calls are one as the other: a tenth of the share does."""

    def trial(call: Call, root: Path) -> Figures:
        with worked(root, cache_dir, claimed_before=False) as work:
            run = start_traced(work.site, Tracing(injection(call, KILL)), *RUN)
            assert ended(work.site, run) == -signal.SIGKILL, f"nobody was killed\n{work.site.said()}"
            return killed(work, undisturbed, "orchestrator")

    points = spread(undisturbed.publishing, share * 5 if share > 1 else 1)
    sweep("orchestrator killed as it publishes", points, trial, tmp_path)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("share", TENTH_OR_ALL)
def test_worker_killed(undisturbed: Undisturbed, cache_dir: Path, tmp_path: Path, share: int, number: int) -> None:
    """Its orchestrator goes on, and so does the Nushell that the worker had started, until it is ended."""

    def trial(call: Call, root: Path) -> Figures:
        return worker_killed(call, number, undisturbed, cache_dir, root)

    points = spread(undisturbed.calls[f"worker.{number}"], share)
    sweep(f"worker {number} killed", points, trial, tmp_path)


def worker_killed(call: Call, number: int, undisturbed: Undisturbed, cache_dir: Path, root: Path) -> Figures:
    """Kill that worker at that call. Which worker gets which attempt is chance: where it got too few, one that is like
    it, or an earlier one: its calls of one name are much the same in each attempt.
    """
    for chance, earlier in enumerate((0, 0, 0, 2, 4, 8, 16)):
        aim = call._replace(number=max(1, call.number - earlier))
        with worked(root / str(chance), cache_dir) as work:
            tracing = Tracing(None, injection(aim, KILL), str(number))
            assert ended(work.site, start_traced(work.site, tracing, *RUN)) == 1, work.site.said()
            log = logs_of(work.site) / f"worker.{number}"
            if was_killed(log):
                return killed(work, undisturbed, log.name)
            call = likened(call, log)
    raise MissedError("nobody was killed")


@pytest.mark.parametrize("count", SAMPLES)
def test_worker_and_then_its_orchestrator_killed(
    undisturbed: Undisturbed, cache_dir: Path, tmp_path: Path, count: int
) -> None:
    """The worker dies in its first attempt, its orchestrator in what comes after that.

    How many calls that is depends on whether a person is waited for: where not both died, it is tried elsewhere.
    """
    chance = random.Random(SEED)
    early, late = undisturbed.calls["worker.1"][:16], undisturbed.calls["orchestrator"]
    late = late[len(late) // 3 : len(late) * 2 // 3]
    points = [(chance.choice(early), [chance.choice(late) for _ in range(8)]) for _ in range(count)]

    def trial(calls: tuple[Call, list[Call]], root: Path) -> Figures:
        names = ("orchestrator", "worker.1")
        for number, call in enumerate(calls[1]):
            with worked(root / str(number), cache_dir) as work:
                tracing = Tracing(injection(call, KILL), injection(calls[0], KILL), "1")
                ended(work.site, start_traced(work.site, tracing, *RUN))
                if all(was_killed(logs_of(work.site) / name) for name in names):
                    return killed(work, undisturbed, *names)
        raise MissedError("not both were killed")

    sweep("worker, then orchestrator killed", points, trial, tmp_path)


@pytest.mark.parametrize("count", SAMPLES)
def test_killed_again_in_the_recovery(undisturbed: Undisturbed, cache_dir: Path, tmp_path: Path, count: int) -> None:
    """An orchestrator is killed, the one after it in the midst of what it makes of that; the third ends it all."""
    chance = random.Random(SEED)
    calls = [call for call in undisturbed.calls["orchestrator"] if call.name in ("rename", "fsync")]
    points = []
    for _ in range(count):
        first = chance.choice(calls[: len(calls) * 2 // 3])
        left = [call.number for call in calls if call.name == first.name][-1] - first.number
        points.append((first, first._replace(number=chance.randint(1, left))))

    def trial(calls: tuple[Call, Call], root: Path) -> Figures:
        with worked(root, cache_dir) as work:
            log = logs_of(work.site) / "orchestrator"
            for number, call in enumerate(calls, start=1):
                run = start_traced(work.site, Tracing(injection(call, KILL)), *RUN)
                assert ended(work.site, run) == -signal.SIGKILL, f"{number}: nobody was killed\n{work.site.said()}"
                log.rename(log.with_name(f"killed.{number}"))
            return killed(work, undisturbed, "killed.1", "killed.2")

    sweep("orchestrator killed twice", points, trial, tmp_path)
