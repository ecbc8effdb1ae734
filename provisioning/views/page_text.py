"""The page of a workflow as people read it: its head, one line per task, and why things wait."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from provisioning.core.workflow import INTERRUPTIONS_ALLOWED, TOO_OFTEN
from provisioning.views.groups import FEW_TASKS, NOTED, groups_text, noted_tasks, told
from provisioning.views.status import ABANDONED, Page, ended_tasks
from provisioning.views.table import shown_value, table
from provisioning.views.text import clock_time, safe, spent

WAITING = {
    "dependency": "waits for {what}",
    "held": "waits for a person",
    "backoff": "next attempt at {at}",
    "stopped": "another task failed",
    "paused": "the workflow is paused",
    "slot": "waits for a free slot",
    "slurm": "with Slurm: {what}",
    "disk": "is waiting for disk space",
    "max_parallel": "waits for max_parallel",
    "not_before": "it is not time yet",
    "target": "waits for target {what}{held_by}",
    "group": "waits for room in group {what}{held_by}",
}
"""Why a pending task does not start, in words, by what stands before the `:` in `waiting_for`."""


def status_text(page: Page, now: datetime, *, width: int | None = None, every_task: bool = True) -> str:
    """Head and tasks; where there are many, and not every one is wanted, those that need a look and groups of them."""
    many = len(page["tasks"]) + page["tasks_left_out"] > FEW_TASKS
    parts = [_wrapped(_head(page, now, counts=many), width)]
    if many and not every_task:
        parts += _noted(page, now, width)
    elif page["tasks"]:
        parts.append(_task_table(page["tasks"], now, width))
    if page["tasks_left_out"]:
        more = "more" if page["tasks"] else "tasks"
        parts.append(
            f"{page['tasks_left_out']} {more}; all: provisioning workflow status {page['workflow_id']} --tasks"
        )
    if len(page["tasks"]) == 1 and not page["tasks_left_out"] and page["tasks"][0]["result"] is not None:
        parts.append(shown_value(page["tasks"][0]["result"], width=width))
    return "\n\n".join(parts)


def _task_table(tasks: list[dict[str, Any]], now: datetime, width: int | None) -> str:
    rows = [_task_row(task, now) for task in tasks]
    return table(rows, ["task", "operation", "state", "attempt", "time", "note"], width=width)


def _noted(page: Page, now: datetime, width: int | None) -> Iterator[str]:
    """What needs a look, then the groups of all."""
    kinds = list(noted_tasks(page))
    noted = [task for kind in kinds for task in kind[:NOTED]]
    if noted:
        yield _task_table(list({task["task_id"]: task for task in noted}.values()), now, width)
    for kind in kinds:
        if len(kind) > NOTED:
            yield f"and {len(kind) - NOTED} more {kind[0]['state']}, which --tasks shows"
    if not page["tasks_left_out"]:
        yield groups_text(page, width=width)


def _wrapped(rows: Iterable[list[str]], width: int | None) -> str:
    """Names and values; a value that is too long for the line goes on below itself, as nothing of it may be lost."""
    lines: list[list[str]] = []
    for name, value in rows:
        parts = textwrap.wrap(safe(value), max(20, width - 12), break_on_hyphens=False) if width else [value]
        lines += [[name if i == 0 else "", part] for i, part in enumerate(parts or [""])]
    return table(lines)


def _head(page: Page, now: datetime, *, counts: bool) -> Iterator[list[str]]:
    total = sum(page["counts"].values())
    yield ["workflow", page["workflow_id"]]
    yield ["name", page["name"]]
    yield ["state", f"{page['state']}, {ended_tasks(page['counts'])} of {total} tasks ended"]
    if counts:
        yield ["tasks", told(page["counts"])]
    if page["reason"]:
        yield ["reason", page["reason"]]
    if page["infra"] != "default":
        yield ["infra", page["infra"]]
    by = f"{clock_time(page['submitted_at'])} by {page['operator']} ({page['door']}), priority {page['priority']}"
    yield ["submitted", by]
    if page["started_at"]:
        took = spent(page["started_at"], page["ended_at"], now)
        yield ["started", f"{clock_time(page['started_at'])}, {'took' if page['ended_at'] else 'for'} {took}"]
    for request in page["requests"]:
        of = f" of {', '.join(request['tasks'])}" if request.get("tasks") else ""
        yield ["asked", f"{clock_time(request['at'])} {request['verb']}{of} by {request['operator']}"]
    if page.get("not_undone"):
        left = [f"{each['task_id']} ({each['reason']})" for each in page["not_undone"]]
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        yield ["not undone", f"{', '.join(left[:5])}{more}"]
    if page["state"] == ABANDONED:
        yield ["note", f"nobody runs it now{_goes_on(page)}; start an orchestrator: provisioning orchestrator start"]
    if page["held"]:
        yield ["note", f"waits for a person; see: provisioning workflow explain {page['workflow_id']}"]


def _goes_on(page: Page) -> str:
    return ", but what runs goes on and will be adopted" if page["counts"].get("running") else ""


def _task_row(task: dict[str, Any], now: datetime) -> list[str]:
    attempts = task["attempts"]
    last = attempts[-1] if attempts else {}
    took = spent(last.get("started_at"), last.get("ended_at"), now) if last else ""
    number = str(last.get("attempt", ""))
    return [task["task_id"], task["operation"], task["state"], number, took, note(task)]


def failure_line(page: Page) -> str:
    """What became of a workflow that did not end well, and the first task to blame, on one line."""
    line = f"workflow {page['workflow_id']} ({safe(page['name'])}): {page['state']}"
    failed = [task for task in page["tasks"] if task["state"] == "failed" and task["attempts"]]
    if page["held"] or not failed:
        return line + _because(page["reason"])
    first = min(failed, key=lambda task: task["attempts"][-1]["ended_at"] or "")
    return f"{line}: task {first['task_id']}: {note(first)}"


def error_text(error: dict[str, Any] | None) -> str:
    """An attempt's error on one line."""
    if not error:
        return ""
    return safe(": ".join(part for part in (error.get("code", ""), error.get("msg", "")) if part))


def note(task: dict[str, Any]) -> str:
    """Why a task is not, or not yet, done."""
    last = task["attempts"][-1] if task["attempts"] else {}
    if undo := task.get("undo"):
        if undo["state"] == "failed":
            error = error_text(undo["attempts"][-1].get("error")) if undo["attempts"] else ""
            return f"its undo failed: {error or safe(undo['reason'])}"
        if undo["state"] in ("running", "cancelled"):
            return f"its undo is {undo['state']}"
    if task["state"] == "failed":
        error = error_text(last.get("error"))
        return ": ".join(filter(None, (TOO_OFTEN, error))) if task["reason"] == TOO_OFTEN else error or task["reason"]
    if task["state"] == "skipped" or (task["state"] == "cancelled" and not last):
        return safe(task["reason"])
    if task["state"] in ("pending", "running"):
        return "; ".join(_waiting(each, task) for each in task["waiting_for"])
    return ""


def _waiting(reason: str, task: dict[str, Any]) -> str:
    kind, _, what = reason.partition(":")
    if kind not in WAITING:
        return reason
    at = clock_time(task.get("next_attempt_at"))
    return WAITING[kind].format(what=safe(what), at=at, held_by=_held_by(task))


def _held_by(task: dict[str, Any]) -> str:
    return f", held by {', '.join(task['held_by'][:3])}" if task.get("held_by") else ""


def explain_text(page: Page, task_ids: list[str], *, worked: bool) -> str:
    """Why the tasks are where they are, and what to do about it. `worked`: an orchestrator starts what waits."""
    workflow_id = page["workflow_id"]
    lines = [f"workflow {workflow_id} ({safe(page['name'])}) is {page['state']}" + _because(page["reason"])]
    if page["state"] in ("queued", ABANDONED) and not worked:
        lines.append(
            f"  nobody works this spool{_goes_on(page)}; start an orchestrator: provisioning orchestrator start"
        )
    elif page["state"] == "queued" and page["not_before"]:
        lines.append(f"  it starts at {clock_time(page['not_before'])} at the earliest")
    elif page["state"] == "queued" and not page["reason"]:
        lines.append("  it is taken on as soon as one of its tasks can start")
    elif page["state"] == "paused" and not page["held"]:
        lines.append(f"  go on with: provisioning workflow resume {workflow_id}")
    chosen = [task for task in page["tasks"] if not task_ids or task["task_id"] in task_ids]
    quiet = {"succeeded", "running"} if not task_ids else set()
    for task in chosen:
        if task["state"] not in quiet or task["waiting_for"]:
            lines.extend(_explained(task, workflow_id, paused=page["state"] == "paused"))
    return "\n".join(lines)


def _because(reason: str) -> str:
    return f": {safe(reason)}" if reason else ""


def _explained(task: dict[str, Any], workflow_id: str, *, paused: bool) -> Iterator[str]:
    name, state, attempts = task["task_id"], task["state"], task["attempts"]
    last = attempts[-1] if attempts else {}
    why = note(task)
    yield f"task {name} is {state}" + (f": {why}" if why else "")
    error = last.get("error") or {}
    if state in ("failed", "pending") and error and error_text(error) != why:
        yield f"  attempt {last['attempt']}: {error_text(error)}"
    if error.get("help") and state != "succeeded":
        yield f"  {safe(error['help'])}"
    again = f"provisioning workflow retry {workflow_id}"
    if "held" in task["waiting_for"]:
        yield f"  attempt {last.get('attempt', '?')} was interrupted, and whether it did its work is not known: look,"
        yield f"  then: {again} --task {name}"
        yield f"  or:   provisioning workflow cancel {workflow_id}"
    elif state == "failed" and task["reason"] == TOO_OFTEN:
        yield f"  it was interrupted {INTERRUPTIONS_ALLOWED} times, and whether it did its work is not known: look,"
        yield f"  then: {again} --task {name}"
    elif state == "failed":
        yield f"  its log: provisioning workflow logs {workflow_id} {name}"
        yield f"  again:   {again}" + (f" --task {name}" if paused else "")
