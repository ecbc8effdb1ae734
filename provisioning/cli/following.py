"""Working or following one workflow until it has ended: progress, Ctrl-C, giving up, and what to say of its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

from provisioning.cli.context import Context
from provisioning.errors import GaveUp, Interrupted, NotFound, WorkflowFailed
from provisioning.storage.lock import Lock
from provisioning.storage.spool import Spool
from provisioning.views.page_text import error_text
from provisioning.views.progress import Progress
from provisioning.views.status import ENDED, Page, WorkflowView, find
from provisioning.views.text import safe, safe_block
from provisioning.views.watching import WatchedWorkflow

POLL_SECONDS = 0.2
LOG_LINES = 12
"""So many of a failed task's last log lines are shown."""


class Failed(WorkflowFailed):
    """A workflow that did not succeed; `details` go into the JSON of the error."""

    def __init__(self, message: str, *, hint: str = "", code: str = "", details: dict[str, Any] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code or self.code
        self.details = details or {}


class Follower:
    """One workflow as it goes on; it may be claimed, moved or rejected meanwhile."""

    def __init__(self, spool: Spool, workflow_id: str, progress: Progress | None = None, *, slots: int = 1) -> None:
        self._spool = spool
        self.workflow_id = workflow_id
        self.progress = progress
        self._slots = slots
        self._view: WatchedWorkflow | None = None

    def look(self) -> Page:
        """What is new of it, shown as progress; the page has what `WatchedWorkflow.news` says. Rejected if it was."""
        page = self._read(lambda view: view.news(self._slots))
        if self.progress:
            self.progress.update(page)
        return page

    def whole(self) -> Page:
        """The page with every task, without results."""
        return self._read(lambda view: view.glance())

    def _read(self, look: Callable[[WatchedWorkflow], Page]) -> Page:
        for _ in range(3):
            folder = find(self._spool, self.workflow_id)
            if self._view is None or self._view.folder.path != folder.path:
                self._view = WatchedWorkflow(folder)
            try:
                return look(self._view)
            except FileNotFoundError:  # moved while we read
                continue
        raise NotFound(f"workflow {self.workflow_id} went away", hint="see: provisioning workflow list")

    def last_line(self, _workflow_id: str, task_id: str, attempt: int) -> str:
        """The last line of an attempt's log so far."""
        return self._view.last_line(task_id, attempt) if self._view else ""

    def page(self) -> Page:
        """Everything about it, results included."""
        return WorkflowView(self._spool.find(self.workflow_id)).page()


def slots_of(context: Context) -> int:
    """So many tasks may run at once, as far as anybody knows: in the orchestrator, or in a process of this config."""
    record = context.spool.running_orchestrator()
    return record.slots if record and record.slots else context.config.orchestrator.slots


def follow(
    context: Context, workflow_id: str, out: TextIO | None, *, max_wait: float | None, as_json: bool = False
) -> Page:
    """Show a workflow's progress, if there is where, until it has ended, or a person must act; its whole page."""
    from provisioning.views.progress import Lines, progress_on

    follower = Follower(context.spool, workflow_id, slots=slots_of(context))
    if out is None:
        return wait(follower, max_wait=max_wait)
    follower.progress = progress = Lines(out, as_json=True) if as_json else progress_on(out, follower.last_line)
    try:
        return wait(follower, max_wait=max_wait)
    finally:
        progress.close()


def wait(follower: Follower, *, max_wait: float | None) -> Page:
    """Look until the workflow has ended, or a person must act: its whole page. GaveUp after `max_wait` seconds."""
    deadline = None if max_wait is None else time.monotonic() + max_wait
    try:
        while True:
            page = follower.look()
            if page["state"] in ENDED or page["held"]:
                return follower.whole()
            check_deadline(deadline, follower.workflow_id, max_wait)
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped waiting; workflow {follower.workflow_id} goes on",
            hint=f"to end it: provisioning workflow cancel {follower.workflow_id}",
        ) from None


def check_deadline(deadline: float | None, workflow_id: str, max_wait: float | None) -> None:
    """GaveUp once the deadline, on the monotonic clock, has passed."""
    if deadline is not None and time.monotonic() >= deadline:
        raise GaveUp(
            f"workflow {workflow_id} has not ended within {max_wait:g} s; it stays in the spool",
            hint=f"see: provisioning workflow status {workflow_id}",
        )


@contextmanager
def interruptions() -> Iterator[Callable[[], int]]:
    """Count Ctrl-C instead of ending at it."""
    count = 0

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: count
    finally:
        signal.signal(signal.SIGINT, before)


def work(context: Context, follower: Follower, *, max_wait: float | None, lock: Lock) -> Page:
    """Work the workflow in this process, or follow whoever does; its page at the end."""
    from provisioning.execution.nulib import load_nulib
    from provisioning.orchestrator.foreground import work_workflow

    deadline = None if max_wait is None else time.monotonic() + max_wait

    def on_change() -> None:
        follower.look()
        check_deadline(deadline, follower.workflow_id, max_wait)

    with interruptions() as count:
        work_workflow(
            context.spool,
            context.config,
            lambda: load_nulib(context.config),
            follower.workflow_id,
            on_change=on_change,
            interruptions=count,
            operator=context.operator,
            lock=lock,
        )
        follower.look()
        page = follower.whole()
        if count() and page["state"] == "cancelled":
            raise Interrupted(f"interrupted; workflow {follower.workflow_id} was cancelled")
    return page


def failure(spool: Spool, page: Page) -> Failed | None:
    """What to say of a workflow that has not succeeded, the end of the failed task's log included."""
    workflow_id = page["workflow_id"]
    if page["state"] == "succeeded":
        return None
    details: dict[str, Any] = {"workflow_id": workflow_id, "state": page["state"]}
    if page["held"]:
        return Failed(
            f"workflow {workflow_id} waits for a person: task {page['held'][0]} was interrupted",
            hint=f"see: provisioning workflow explain {workflow_id}",
            details=details,
        )
    failed = [task for task in page["tasks"] if task["state"] == "failed"]
    if not failed:
        reason = f": {page['reason']}" if page["reason"] else ""
        hint = f"see: provisioning workflow status {workflow_id}"
        return Failed(f"workflow {workflow_id} is {page['state']}{safe(reason)}", hint=hint, details=details)
    task = failed[0]
    last = task["attempts"][-1] if task["attempts"] else {}
    error = last.get("error") or {}
    details |= {"task_id": task["task_id"], "operation": task["operation"], "attempt": last.get("attempt")}
    said = error_text(error) or safe(task["reason"])
    where = f" in task {task['task_id']}" if len(page["tasks"]) > 1 else ""
    more = f" ({len(failed)} tasks failed)" if len(failed) > 1 else ""
    return Failed(
        f"{task['operation']} failed{where}{more}: {said}",
        hint=error.get("help") or f"see: provisioning workflow logs {workflow_id} {task['task_id']}",
        code=error.get("code", ""),
        details=details,
    )


def log_end(spool: Spool, page: Page) -> str:
    """The last lines of the first failed task's log, ready to be shown."""
    from provisioning.storage import logs

    for task in page["tasks"]:
        if task["state"] == "failed" and task["attempts"]:
            path = spool.find(page["workflow_id"]).log_path(task["task_id"], task["attempts"][-1]["attempt"])
            text = logs.tail(path, LOG_LINES).decode(errors="replace").rstrip("\n")
            return safe_block("\n".join(f"  {line}" for line in text.splitlines()))
    return ""


def raise_unless_succeeded(context: Context, page: Page) -> None:
    """Failed, after the end of its log was shown, for a workflow that has not succeeded."""
    error = failure(context.spool, page)
    if error is None:
        return
    if end := log_end(context.spool, page):
        context.say(f"the end of its log:\n{end}")
    raise error
