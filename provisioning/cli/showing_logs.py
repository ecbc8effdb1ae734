"""Logs of attempts on stdout: once or as they grow, one task's or all of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from provisioning.cli.context import Context, on_stdout
from provisioning.cli.following import POLL_SECONDS, Follower
from provisioning.core.catalogue import nearest_hint
from provisioning.core.states import ENDED_TASKS
from provisioning.errors import NotFound
from provisioning.storage import logs
from provisioning.views.log_lines import LogLines, Piece, attempts_of
from provisioning.views.status import OVER, Page, find

CHUNK = 1 << 16


def show_logs(
    context: Context,
    workflow_id: str,
    task: str | None,
    *,
    attempt: int | None,
    every: bool,
    follow: bool,
) -> None:
    """Print the logs; with `follow` until what they belong to has ended, and each attempt that begins meanwhile."""
    found = find(context.spool, workflow_id).workflow_id
    follower = Follower(context.spool, found)
    printer = _Printer(context, one=task is not None)
    wanted = _Wanted(context, found, task, attempt, every=every)
    while True:
        page = follower.look()  # before the logs: what had ended then has written all it will
        wanted.check(page)
        pieces = list(wanted.pieces(page))
        if not printer.seen:
            printer.lines.expect([piece.name for piece in pieces])
        for piece in pieces:
            printer.print_new(piece)
        if not follow or page["state"] in OVER or wanted.over:
            break
        time.sleep(POLL_SECONDS)
    printer.finish()
    if attempt is not None and not printer.seen:
        raise NotFound(f"there is no log of attempt {attempt}", hint=f"see: provisioning workflow status {found}")


class _Wanted:
    """Which logs are to be looked at next: those of tasks that run, and of those that are new or have changed."""

    def __init__(
        self, context: Context, workflow_id: str, task: str | None, attempt: int | None, *, every: bool
    ) -> None:
        self._spool = context.spool
        self._workflow_id = workflow_id
        self._task, self._attempt, self._every = task, attempt, every
        self._known: set[str] = set()
        self._growing: dict[str, Page] = {}
        """The tasks that run."""
        self._last: dict[str, int] = {}
        """Of each task the latest attempt that was shown."""
        self._followed = False
        """Whether this is not the first look: what has begun since is shown from its first attempt on."""
        self.over = False
        """Whether the one task that is wanted has ended."""

    def check(self, page: Page) -> None:
        """NotFound where the workflow has no such task."""
        new = {each["task_id"] for each in page["tasks"]}
        if not self._known and new and self._task is not None and self._task.removesuffix("~undo") not in new:
            hint = nearest_hint(self._task, new) or f"see: provisioning workflow status {self._workflow_id}"
            raise NotFound(f"workflow {self._workflow_id} has no task {self._task!r}", hint=hint)
        self._known |= new

    def pieces(self, page: Page) -> Iterator[Piece]:
        """Logs in which there may be something new, those of a task in the order of its attempts."""
        changed = {each["task_id"]: each for each in page["tasks"]}
        for task in (self._growing | changed).values():
            if task["state"] == "running" or task.get("undo", {}).get("state") == "running":
                self._growing[task["task_id"]] = task
            else:
                self._growing.pop(task["task_id"], None)
            if task["task_id"] == self._task:
                self.over = task["state"] in {*map(str, ENDED_TASKS)}
            yield from self._pieces_of(attempts_of(task))
        self._followed = True

    def _pieces_of(self, attempts: Iterable[tuple[str, int]]) -> Iterator[Piece]:
        folder = self._spool.find(self._workflow_id)
        made: dict[str, list[int]] = {}
        for name, number in attempts:
            if self._task in (None, name) and self._attempt in (None, number):
                made.setdefault(name, []).append(number)
        for name, numbers in made.items():
            all_of_it = self._every or self._attempt or self._followed
            first = self._last.get(name, 1 if all_of_it else numbers[-1])
            self._last[name] = numbers[-1]
            yield from (Piece(name, each, folder.log_path(name, each)) for each in numbers if each >= first)


class _Printer:
    """Prints what is new of each log; of several logs whole lines, with the task's name before them."""

    def __init__(self, context: Context, *, one: bool) -> None:
        self._context = context
        self._as_it_is = one and not context.json and not sys.stdout.isatty()
        self.lines = LogLines(sys.stdout, as_json=context.json, plain=one and not context.json)
        self._offsets: dict[Path, int] = {}
        self._partial: dict[Piece, bytes] = {}

    @property
    def seen(self) -> bool:
        return bool(self._offsets)

    def print_new(self, piece: Piece) -> None:
        while True:
            offset = self._offsets.get(piece.path, 0)
            data = logs.read_from(piece.path, offset, CHUNK)
            if not data:
                break
            self._offsets[piece.path] = offset + len(data)
            self._print(piece, data)
        sys.stdout.flush()

    def _print(self, piece: Piece, data: bytes) -> None:
        self._context.answered = True
        if self._as_it_is:
            with on_stdout():
                sys.stdout.flush()
                sys.stdout.buffer.write(data)
            return
        *lines, rest = (self._partial.pop(piece, b"") + data).split(b"\n")
        if len(rest) > CHUNK:
            lines, rest = [*lines, rest], b""
        if rest:
            self._partial[piece] = rest
        for line in lines:
            self._print_line(piece, line)

    def _print_line(self, piece: Piece, line: bytes) -> None:
        with on_stdout():
            sys.stdout.write(self.lines.line(piece, line))

    def finish(self) -> None:
        """Print lines that never ended."""
        for piece, rest in self._partial.items():
            self._print_line(piece, rest)
        self._partial.clear()
        sys.stdout.flush()
