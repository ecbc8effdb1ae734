"""Progress as one line for each change: for pipes, files, and terminals that cannot do more. Live: `live.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TextIO

from provisioning.clock import now
from provisioning.views.page_text import error_text, note
from provisioning.views.status import OVER, Page
from provisioning.views.text import line_json, safe, spent

LastLine = Callable[[str, str, int], str]
"""The last line of an attempt's log so far: of that workflow, task and attempt."""


class Progress(Protocol):
    """Shows pages, again and again, as they change. A page may have only those tasks that are another than before."""

    def update(self, page: Page) -> None:
        """Show what is new."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Changes:
    """What happened between the pages of one workflow, or of several."""

    def __init__(self) -> None:
        self._tasks: dict[tuple[str, str], tuple[str, int | str | None]] = {}
        self._states: dict[str, str] = {}

    def of(self, page: Page) -> list[dict[str, Any]]:
        """What is new in this page: one item for each task that changed and one for the workflow."""
        workflow_id = page["workflow_id"]
        found: list[dict[str, Any]] = []
        for task in page["tasks"]:
            name, mark = (workflow_id, task["task_id"]), _mark(task)
            if mark == self._tasks.get(name, ("pending", None)):
                continue
            self._tasks[name] = mark
            last = task["attempts"][-1] if task["attempts"] else {}
            found.append(
                {
                    "workflow_id": workflow_id,
                    "task_id": task["task_id"],
                    "state": task["state"],
                    "attempt": last.get("attempt"),
                    "started_at": last.get("started_at"),
                    "ended_at": last.get("ended_at"),
                    "error": last.get("error"),
                    "note": note(task),
                }
            )
        before, self._states[workflow_id] = self._states.get(workflow_id), page["state"]
        if before == page["state"]:
            return found
        own = {"workflow_id": workflow_id, "state": page["state"], "reason": page["reason"]}
        return [*found, own] if page["state"] in OVER else [own, *found]


def _mark(task: dict[str, Any]) -> tuple[str, int | str | None]:
    state = task["state"] if "undo" not in task else f"{task['state']}, undo {task['undo']['state']}"
    return state, task["attempts"][-1]["attempt"] if task["attempts"] else None


def change_text(change: dict[str, Any]) -> str:
    """A change as one line."""
    reason = f": {safe(change['reason'])}" if change.get("reason") else ""
    if "task_id" not in change:
        return f"workflow {change['workflow_id']} {change['state']}{reason}"
    took = spent(change["started_at"], change["ended_at"], now()) if change["ended_at"] else ""
    number = f" (attempt {change['attempt']})" if (change["attempt"] or 1) > 1 else ""
    why = error_text(change["error"]) if change["state"] != "succeeded" else ""
    if change["state"] == "pending" and change["error"]:
        why = f"{why}; {change['note']}"
    else:
        why = why or change["note"]
    return (
        f"{safe(change['task_id'])} {change['state']}{number}"
        + (f" {took}" if took else "")
        + (f": {why}" if why else "")
    )


def help_text(change: dict[str, Any]) -> str:
    """What to do about a task that has failed, on one line; empty for other changes and where nobody knows."""
    failed = "task_id" in change and change["state"] == "failed"
    return safe((change["error"] or {}).get("help", "")) if failed else ""


class Lines:
    """One line per change. Of several workflows, each line begins with whose it is."""

    def __init__(self, out: TextIO, *, as_json: bool = False, several: bool = False) -> None:
        self._out = out
        self._as_json = as_json
        self._several = several
        self._changes = Changes()

    def update(self, page: Page) -> None:
        for change in self._changes.of(page):
            self._out.write((self._json(change) if self._as_json else self._text(change)) + "\n")
        self._out.flush()

    def _text(self, change: dict[str, Any]) -> str:
        hint = f"; hint: {text}" if (text := help_text(change)) else ""
        whose = f"{change['workflow_id']} " if self._several and "task_id" in change else ""
        return f"{whose}{change_text(change)}{hint}"

    @staticmethod
    def _json(change: dict[str, Any]) -> str:
        return line_json({name: fact for name, fact in change.items() if name != "note"})

    def close(self) -> None:
        return


def progress_on(out: TextIO, last_line: LastLine | None = None, *, several: bool = False) -> Progress:
    """The live view on a terminal, lines elsewhere."""
    if not out.isatty():
        return Lines(out, several=several)
    from provisioning.views.live import Live

    return Live(out, last_line, several=several)
