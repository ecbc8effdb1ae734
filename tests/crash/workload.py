"""The workflows that the sweeps disturb, and what was promised of them, however they were disturbed."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from provisioning.clock import new_ulid, now
from provisioning.core.workflow import FORMAT, Request
from provisioning.execution.nulib import load_nulib
from provisioning.storage import reading
from provisioning.storage.check import check
from provisioning.storage.checkpoint import encode
from provisioning.storage.request import request_name
from provisioning.views.status import Page, workflow_status
from tests.crash.tracing import left_of
from tests.installation import Installation
from tests.waiting import wait_for

LOST = ("interrupted", "not_started")
"""Outcomes of attempts of which nobody knows, or that were none."""
ONCE = ("first", "second", "last", "small", "noted", "made")
"""Tasks whose line is in the file of marks once in the end: a person or a probe says whether they are done again."""
AGAIN = "again"
"""The task that may run again: each attempt leaves a line of its own."""
REPEATED = {AGAIN: AGAIN, "made~undo": "unmade"}
"""What may be done again, and the line that each attempt leaves, behind a dot its number."""


class Task(NamedTuple):
    """How a task has ended, since a person last had it done again; attempts that were lost left out."""

    state: str
    outcomes: tuple[str, ...]
    lost: int


class End(NamedTuple):
    """How a workflow has ended."""

    state: str
    reason: str
    tasks: dict[str, Task]


class Work:
    """Four workflows in one spool: one with every kind of task, one that is cancelled while it runs, one small, one
    that is rolled back.
    """

    def __init__(self, site: Installation, *, claimed_before: bool = True) -> None:
        self.site = site
        if claimed_before:  # the operations are published at the first claim with them
            load_nulib(site.config).keep(site.spool)
        self.asked = 0
        """How often a person had to look."""
        self.done = 0
        """How often that person found that the work was done."""
        self.ids = {
            "main": site.submit(_tasks(site), name="main", on_failure="continue"),
            "cancelled": site.submit(_cancelling(site), name="cancelled"),
            "small": site.submit([site.mark("small")], name="small"),
            "undone": site.submit(_undone(site), name="undone", on_failure="rollback"),
        }
        request = Request(FORMAT, new_ulid(), self.ids["cancelled"], "cancel", "tester", now())
        (site.root / "request").write_bytes(encode(request))
        (site.root / "request").chmod(0o600)
        (site.root / "asked").symlink_to(site.spool.requests / request_name(request))

    # To the end

    def finish(self) -> None:
        """Work the spool undisturbed until all has ended, and be the person that a held task waits for."""
        self.site.drain(slots=2, max_wait=15)
        while held := [(workflow_id, task) for workflow_id in self.ids.values() for task in self._held(workflow_id)]:
            for workflow_id, task_id in held:
                self._decide(workflow_id, task_id)
            self.site.drain(slots=2, max_wait=15)

    def _held(self, workflow_id: str) -> list[str]:
        page = workflow_status(self.site.folder(workflow_id))
        held: list[str] = page.get("held", [])
        if held:
            assert page["state"] == "paused", page
            assert page["reason"] == f"waiting for a person: task {min(held)}", page
        return held

    def _decide(self, workflow_id: str, task_id: str) -> None:
        """Look whether the work of an interrupted task is done, undo it by hand if so, and have it done again."""
        assert task_id in ONCE, f"{task_id} need not ask anybody"
        assert self.site.outcomes(workflow_id, task_id)[-1] == "interrupted"
        lines = self.site.mark_lines()
        assert lines.count(task_id) <= 1, f"{task_id} was done twice before anybody was asked"
        self.asked += 1
        self.done += lines.count(task_id)
        with contextlib.suppress(ValueError):
            lines.remove(task_id)
        self.site.marks.write_text("".join(f"{line}\n" for line in lines))
        self.site.ask("retry", workflow_id, task_id)

    # What has come of it

    def ends(self) -> dict[str, End]:
        """How each workflow has ended."""
        return {name: self._end(workflow_id) for name, workflow_id in self.ids.items()}

    def _end(self, workflow_id: str) -> End:
        page = workflow_status(self.site.folder(workflow_id))
        tasks = {task["task_id"]: self._task(workflow_id, task) for task in page["tasks"]}
        return End(page["state"], page["reason"], tasks)

    def _task(self, workflow_id: str, shown: Page) -> Task:
        """A retry has everything done again that had failed, so that only what came after it counts."""
        checkpoint = self.site.task(workflow_id, shown["task_id"])
        attempts = [attempt for attempt in checkpoint.attempts if attempt.number >= checkpoint.counted_from]
        outcomes = [str(attempt.outcome) for attempt in attempts if not attempt.probe or attempt.outcome in LOST]
        kept = tuple(outcome for outcome in outcomes if outcome not in LOST)
        return Task(shown["state"], kept, len(outcomes) - len(kept))

    def lost(self, undisturbed: dict[str, End]) -> list[str]:
        """What is otherwise than in the undisturbed run, or less."""
        found = []
        for name, end in self.ends().items():
            expected = undisturbed[name]
            if (end.state, end.reason) != (expected.state, expected.reason):
                found.append(f"{name} is {end.state} ({end.reason}), not {expected.state} ({expected.reason})")
            for task_id, task in end.tasks.items():
                wanted = expected.tasks[task_id]
                if task_id == "then" and not end.tasks["waits"].outcomes:
                    # What it waits for was cut off and never cancelled: it was cancelled with its workflow.
                    wanted = wanted._replace(state="cancelled")
                if not _agrees(task, wanted):
                    found.append(f"{name}/{task_id} is {task}, not {wanted}")
        lines = self.site.mark_lines()
        found += [f"no mark of {task_id}" for task_id in ONCE if task_id not in lines]
        for task_id, line in REPEATED.items():
            succeeded = [n for n, outcome in self._attempts(task_id) if outcome == "succeeded"]
            found += [f"no mark of attempt {n} of {task_id}" for n in succeeded if f"{line}.{n}" not in lines]
        return found

    def doubled(self) -> list[str]:
        """What was done more often than promised."""
        allowed = {
            *ONCE,
            *(
                f"{line}.{number}"
                for task_id, line in REPEATED.items()
                for number, outcome in self._attempts(task_id)
                if outcome != "not_started"
            ),
        }
        lines = Counter(self.site.mark_lines())
        return [f"{line}: {times} times" for line, times in lines.items() if times > 1 or line not in allowed]

    def _attempts(self, task_id: str) -> list[tuple[int, str]]:
        attempts = self.site.task(self.ids["main" if task_id == AGAIN else "undone"], task_id).attempts
        return [(attempt.number, str(attempt.outcome)) for attempt in attempts]

    def litter(self) -> list[str]:
        """What should not be there any more: damage, requests, scratch folders, processes."""
        site = self.site
        site.spool.close()  # this process has a scratch folder there too
        if list(site.spool.tmp.iterdir()):
            # What a worker left that died beside children of its is the next orchestrator's to remove.
            wait_for(lambda: not site.workers(), what="the end of all workers")
            site.drain(slots=2)
        wait_for(lambda: not left_of(site), what=f"the end of {left_of(site)}")
        found = [str(problem) for problem in check(site.spool.root)]
        for folder in (site.spool.requests, site.spool.tmp, site.spool.incoming, site.spool.rejected):
            found += [f"{folder / name} was left" for name in reading.list_names(folder)]
        return found


def _tasks(site: Installation) -> list[dict[str, Any]]:
    """Success, failure, a retry that helps, a timeout, and every policy for what is interrupted."""
    flaky = f"test -e {site.root}/tried || {{ touch {site.root}/tried; exit 1; }}"
    note = {"file": str(site.marks), "line": "noted"}
    again = f"echo {AGAIN}.$PROVISIONING_ATTEMPT >> {site.marks}"
    return [
        site.mark("first"),
        _script(AGAIN, again),
        _script("flaky", flaky, retry={"max_attempts": 2, "initial_delay": "10ms"}),
        {"id": "bad", "operation": "selftest.fail"},
        {"id": "slow", "operation": "selftest.sleep", "params": {"seconds": 60}, "timeout": "300ms"},
        {"id": "noted", "operation": "trial.note", "params": note, "on_interrupt": "probe"},
        site.mark("second", depends_on=["first"]),
        {"id": "noop", "operation": "selftest.noop", "depends_on": ["first"]},
        site.mark("never", depends_on=["bad"]),
        site.mark("last", after=["bad", "second", "flaky", "slow"]),
    ]


def _cancelling(site: Installation) -> list[dict[str, Any]]:
    """A task that has its own workflow cancelled, as a person would, and one that then must not start."""
    cancel = f'cp {site.root}/request "{site.root}/copy.$PROVISIONING_ATTEMPT"'
    cancel += f' && mv "{site.root}/copy.$PROVISIONING_ATTEMPT" "$(readlink {site.root}/asked)" && exec sleep 60'
    return [_script("waits", cancel), site.mark("then", depends_on=["waits"])]


def _undone(site: Installation) -> list[dict[str, Any]]:
    """A task that is undone, as the one behind it fails."""
    script = f"echo unmade.$PROVISIONING_ATTEMPT >> {site.marks}"
    undo = {"operation": "trial.again", "params": {"script": script}}
    return [site.mark("made", undo=undo), {"id": "breaks", "operation": "selftest.fail", "depends_on": ["made"]}]


def _script(task_id: str, script: str, **more: Any) -> dict[str, Any]:
    return {"id": task_id, "operation": "trial.again", "params": {"script": script}, **more}


def _agrees(task: Task, expected: Task) -> bool:
    """Whether it ended as expected; of what was to come before that, so much may be unknown as was lost."""
    if task.state != expected.state:
        return False
    missing = len(expected.outcomes) - len(task.outcomes)
    return 0 <= missing <= task.lost and expected.outcomes[missing:] == task.outcomes


@contextlib.contextmanager
def worked(root: Path, cache_dir: Path, *, claimed_before: bool = True) -> Iterator[Work]:
    """The workflows in a new installation, which is closed and removed afterwards; kept where something went wrong.

    `claimed_before` says whether these operations are in the spool from an earlier claim.
    """
    root.mkdir(parents=True)
    site = Installation(root, cache_dir)
    try:
        yield Work(site, claimed_before=claimed_before)
    finally:
        site.close()
    shutil.rmtree(root)  # only what went well: there will be many
