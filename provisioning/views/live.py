"""Progress on a terminal, redrawn in place (rich): bars, what runs with its last words, and what went wrong."""

from __future__ import annotations

import time
from typing import Any, TextIO

from provisioning.clock import now
from provisioning.views.progress import Changes, LastLine, change_text, help_text
from provisioning.views.status import OVER, Page, ended_tasks
from provisioning.views.table import cut, width_of
from provisioning.views.text import clock_time, instant, safe, spent

ROWS = 12
"""Running tasks that are listed at most, however high the terminal."""
REDRAW_SECONDS = 1.0
"""So often the clocks in it are moved on while nothing happens."""
_BAR = 24
_COLOURS = {"failed": "red", "cancelled": "yellow", "abandoned": "yellow", "paused": "yellow", "succeeded": "green"}


class Live:
    """A bar for each workflow and a line for each task that runs. What went wrong is left above it, with its help.

    Every line is cut to the width of the terminal, and there are never more than fit: nothing wraps or scrolls, so that
    what is drawn next lies exactly over it, also after the terminal was resized.
    """

    def __init__(self, out: TextIO, last_line: LastLine | None = None, *, several: bool = False) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._console = Console(file=out, highlight=False)
        # Without a thread of its own: whoever shows it looks often enough, and signals stay simple.
        self._live = RichLive(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._last_line = last_line or (lambda _workflow, _task, _attempt: "")
        self._several = several
        self._changes = Changes()
        self._pages: dict[str, Page] = {}
        """The latest page of each workflow that has not ended."""
        self._running: dict[str, dict[str, dict[str, Any]]] = {}
        """Of each workflow the tasks that run."""
        self._drawn_at = 0.0
        self._size = self._console.size
        self._live.start()

    def update(self, page: Page) -> None:
        workflow_id = page["workflow_id"]
        changes = self._changes.of(page)
        running = self._running.setdefault(workflow_id, {})
        for task in page["tasks"]:
            if task["state"] == "running":
                running[task["task_id"]] = task
            else:
                running.pop(task["task_id"], None)
        self._pages[workflow_id] = page
        if page["state"] in OVER and self._several:
            self._pages.pop(workflow_id)
            self._running.pop(workflow_id)
        for change in changes:
            self._keep(change, page)
        size = self._console.size
        if changes or size != self._size or time.monotonic() >= self._drawn_at + REDRAW_SECONDS:
            self._size, self._drawn_at = size, time.monotonic()
            self._live.update(self._drawing(), refresh=True)

    def close(self) -> None:
        self._live.stop()

    def _keep(self, change: dict[str, Any], page: Page) -> None:
        """Leave a change above the live part, if it says what went wrong, or how a workflow ended."""
        from rich.text import Text

        own = "task_id" not in change
        if change["state"] not in (OVER if own else ("failed", "cancelled")):
            return
        whose = "" if own or not self._several else f"{safe(page['name'])}: "
        self._say(Text(f"{whose}{change_text(change)}", style=_COLOURS.get(change["state"], "")))
        if own or change["state"] != "failed":
            return
        if hint := help_text(change):
            self._say(Text(f"  hint: {hint}"))
        log = f"  its log: provisioning workflow logs {page['workflow_id']} {change['task_id']}"
        self._say(Text(safe(log), style="dim"))

    def _say(self, text: Any) -> None:
        self._console.print(text, soft_wrap=True)

    def _drawing(self) -> Any:
        from rich.console import Group

        width, room = self._size.width, max(1, self._size.height - 2)
        pages = sorted(self._pages.values(), key=lambda page: (page["state"] != "running", page["workflow_id"]))
        bars = pages[: max(1, room // 2)] if self._several else pages
        lines = [line for page in bars for line in self._bar(page, width)]
        if len(pages) > len(bars):
            lines.append(_cut(f"and {len(pages) - len(bars)} more workflows", width))
        lines += self._tasks(bars, max(1, min(ROWS, room - len(lines) - 1)), width)
        return Group(*lines[:room])

    def _bar(self, page: Page, width: int) -> list[Any]:
        """One line, or two where it is alone: how far the workflow is, and for how long yet."""
        from rich.text import Text

        counts, total = page["counts"], sum(page["counts"].values())
        over, moment = ended_tasks(counts), now()
        facts = [f"{over}/{total}", page["state"], spent(page["started_at"], page["ended_at"], moment)]
        if self._several:
            told = {state: counts[state] for state in ("failed", "running") if counts.get(state)}
            facts += [f"{count} {state}" for state, count in told.items()]
        if ends_at := page.get("ends_at"):
            left = spent(instant(moment), instant(max(ends_at, moment)), moment)
            facts.append(f"about {left} left")
            facts.append(f"until {clock_time(instant(ends_at))}")
        name = cut(safe(page["name"]), max(8, width // 4))
        length = max(4, min(_BAR, width // 5))
        full = length * over // max(total, 1)
        line = Text(f"{name} ", no_wrap=True, overflow="crop")
        line.append("━" * full, style="red" if counts.get("failed") else "green")
        line.append("─" * (length - full), style="bright_black")
        for fact in filter(None, facts):  # as many as there is room for
            if line.cell_len + 2 + width_of(fact) <= width:
                line.append(f"  {fact}", style=_COLOURS.get(fact, ""))
        if self._several:
            return [line]
        return [line, _cut("  " + ", ".join(f"{count} {state}" for state, count in counts.items()), width)]

    def _tasks(self, pages: list[Page], room: int, width: int) -> list[Any]:
        """A line for each running task, with the last line of its log behind it as far as there is room."""
        from rich.text import Text

        going = [(page, task) for page in pages for task in self._running[page["workflow_id"]].values()]
        shown = going[: room if len(going) <= room else max(1, room - 1)]
        rows, moment = [], now()
        for page, task in shown:
            last = task["attempts"][-1]
            again = f"attempt {last['attempt']}" if last["attempt"] > 1 else ""
            name = f"{page['name']}: {task['task_id']}" if self._several else task["task_id"]
            cells = [name, task["operation"], spent(last["started_at"], None, moment), again]
            said = self._last_line(page["workflow_id"], task["task_id"], last["attempt"])
            rows.append(([safe(cell) for cell in cells], safe(said.strip())))
        widths = [max((len(cells[i]) for cells, _ in rows), default=0) for i in range(4)]
        lines: list[Any] = []
        for cells, said in rows:
            padded = [cell.ljust(widths[i]) for i, cell in enumerate(cells) if widths[i]]
            text = _cut("  " + "  ".join(padded), width)
            if said and (left := width - 2 - text.cell_len) > 8:
                text.append("  " + cut(said, left), style="dim")
            lines.append(text)
        if len(going) > len(shown):
            lines.append(Text(f"  and {len(going) - len(shown)} more"))
        return lines


def _cut(line: str, width: int) -> Any:
    from rich.text import Text

    return Text(cut(line, width), no_wrap=True, overflow="crop")
