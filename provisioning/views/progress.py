"""A workflow's progress while it runs: live on a terminal (rich), one plain line per change elsewhere."""

from __future__ import annotations

from typing import Any, Protocol, TextIO

from provisioning.clock import now
from provisioning.views.page_text import error_text, note
from provisioning.views.status import ENDED, Page, ended_tasks
from provisioning.views.table import cut
from provisioning.views.text import line_json, safe, spent

_ROWS = 12
"""Running tasks that the live view lists at most."""


class Progress(Protocol):
    """Shows a page, again and again, as it changes."""

    def update(self, page: Page) -> None:
        """Show what is new."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def changes(before: Page | None, page: Page) -> list[dict[str, Any]]:
    """What happened between two pages, one item per task that changed and one for the workflow."""
    old = {task["task_id"]: _mark(task) for task in before["tasks"]} if before else {}
    found: list[dict[str, Any]] = []
    for task in page["tasks"]:
        mark = _mark(task)
        if mark == old.get(task["task_id"], ("pending", None)):
            continue
        last = task["attempts"][-1] if task["attempts"] else {}
        found.append(
            {
                "task_id": task["task_id"],
                "state": task["state"],
                "attempt": last.get("attempt"),
                "started_at": last.get("started_at"),
                "ended_at": last.get("ended_at"),
                "error": last.get("error"),
                "note": note(task),
            }
        )
    if before is not None and before["state"] == page["state"]:
        return found
    own = {"workflow_id": page["workflow_id"], "state": page["state"], "reason": page["reason"]}
    return [*found, own] if page["state"] in ENDED else [own, *found]


def _mark(task: dict[str, Any]) -> tuple[str, int | str | None]:
    state = task["state"] if "undo" not in task else f"{task['state']}, undo {task['undo']['state']}"
    return state, task["attempts"][-1]["attempt"] if task["attempts"] else None


def change_text(change: dict[str, Any]) -> str:
    """A change as one line."""
    reason = f": {safe(change['reason'])}" if change.get("reason") else ""
    if "workflow_id" in change:
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


class Lines:
    """One line per change: for pipes, files, and terminals that cannot do more."""

    def __init__(self, out: TextIO, *, as_json: bool = False) -> None:
        self._out = out
        self._as_json = as_json
        self._before: Page | None = None

    def update(self, page: Page) -> None:
        for change in changes(self._before, page):
            if self._as_json:
                change.pop("note", None)
            self._out.write((line_json(change) if self._as_json else change_text(change)) + "\n")
        self._out.flush()
        self._before = page

    def close(self) -> None:
        return


class Live:
    """A bar over all tasks and a line for each one that runs, redrawn in place."""

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._console = Console(file=out, highlight=False)
        self._live = RichLive(console=self._console, refresh_per_second=8, transient=True, redirect_stdout=False)
        self._page: Page | None = None
        self._live.start()

    def update(self, page: Page) -> None:
        from rich.text import Text

        lines = [change_text(change) for change in changes(self._page, page) if self._kept(change)]
        for line in lines:
            self._console.print(Text(line), soft_wrap=True)
        self._page = page
        self._live.update(self._drawing(page))

    def close(self) -> None:
        self._live.stop()

    @staticmethod
    def _kept(change: dict[str, Any]) -> bool:
        """Whether the change stays above the live part: what went wrong, and how the workflow ended."""
        return change["state"] in (("failed", "cancelled") if "task_id" in change else ENDED)

    def _drawing(self, page: Page) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        counts, total = page["counts"], sum(page["counts"].values())
        over = ended_tasks(counts)
        head = Table.grid(padding=(0, 1))
        told = ", ".join(f"{count} {state}" for state, count in counts.items())
        head.add_row(Text(cut(safe(page["name"]), 30)), ProgressBar(total=max(total, 1), completed=over, width=24))
        running = Table.grid(padding=(0, 2))
        going = [task for task in page["tasks"] if task["state"] == "running"]
        for task in going[:_ROWS]:
            attempt = task["attempts"][-1]
            again = f"attempt {attempt['attempt']}" if attempt["attempt"] > 1 else ""
            cells = ("  " + task["task_id"], task["operation"], spent(attempt["started_at"], None, now()), again)
            running.add_row(*(Text(safe(cell)) for cell in cells))
        if len(going) > _ROWS:
            running.add_row(Text(f"  and {len(going) - _ROWS} more"))
        return Group(head, Text(f"{page['state']}: {told}"), running)


def progress_on(out: TextIO) -> Progress:
    """The live view on a terminal, lines elsewhere."""
    return Live(out) if out.isatty() else Lines(out)
