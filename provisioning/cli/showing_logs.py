"""Logs of attempts on stdout: once or as they grow, one task's or all of them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import NamedTuple

from provisioning.cli.context import Context, on_stdout
from provisioning.cli.following import POLL_SECONDS, Follower
from provisioning.core.catalogue import nearest_hint
from provisioning.core.states import ENDED_TASKS
from provisioning.errors import NotFound
from provisioning.storage import logs
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.views.status import ENDED, find
from provisioning.views.text import line_json, safe_block

CHUNK = 1 << 16


class Piece(NamedTuple):
    """The log of one attempt."""

    task_id: str
    attempt: int
    path: Path


def show_logs(context: Context, workflow_id: str, task: str | None, *, attempt: int | None, follow: bool) -> None:
    """Print the logs; with `follow` until what they belong to has ended."""
    found = find(context.spool, workflow_id).workflow_id
    follower = Follower(context.spool, found)
    known = [each["task_id"] for each in follower.look()["tasks"]]
    if task is not None and known and task not in known:
        hint = nearest_hint(task, known) or f"see: provisioning workflow status {found}"
        raise NotFound(f"workflow {found} has no task {task!r}", hint=hint)
    printer = _Printer(context, one=task is not None)
    while True:
        page = follower.look()  # before the logs: what had ended then has written all it will
        for piece in _pieces(context.spool.find(found), task, attempt):
            printer.print_new(piece)
        over = page["state"] in ENDED or (task is not None and _ended(page["tasks"], task))
        if not follow or over:
            break
        time.sleep(POLL_SECONDS)
    printer.finish()
    if attempt is not None and not printer.seen:
        raise NotFound(f"there is no log of attempt {attempt}", hint=f"see: provisioning workflow status {found}")


def _ended(tasks: list[dict[str, object]], task: str) -> bool:
    return any(each["task_id"] == task and each["state"] in ENDED_TASKS for each in tasks)


def _pieces(folder: WorkflowFolder, task: str | None, attempt: int | None) -> list[Piece]:
    """The logs to show: of each task the attempt asked for, or its latest."""
    latest: dict[str, Piece] = {}
    for task_id, number, path in logs.attempts_of(folder.path / "logs"):
        wanted = (task is None or task == task_id) and attempt in (None, number)
        if wanted and (task_id not in latest or latest[task_id].attempt < number):
            latest[task_id] = Piece(task_id, number, path)
    return list(latest.values())


class _Printer:
    """Prints what is new of each log; of several logs whole lines, with the task's name before them."""

    def __init__(self, context: Context, *, one: bool) -> None:
        self._context = context
        self._plain = one and not context.json
        self._offsets: dict[Path, int] = {}
        self._partial: dict[Piece, bytes] = {}
        self._terminal = sys.stdout.isatty()

    @property
    def seen(self) -> bool:
        return bool(self._offsets)

    def print_new(self, piece: Piece) -> None:
        while True:
            offset = self._offsets.setdefault(piece.path, 0)
            data = logs.read_from(piece.path, offset, CHUNK)
            if not data:
                break
            self._offsets[piece.path] = offset + len(data)
            self._print(piece, data)
        sys.stdout.flush()

    def _print(self, piece: Piece, data: bytes) -> None:
        self._context.answered = True
        if self._plain and not self._terminal:
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
        text = line.decode(errors="replace")
        if self._context.json:
            text = line_json({"task_id": piece.task_id, "attempt": piece.attempt, "line": text})
        else:
            text = safe_block(text) if self._terminal else text
            text = text if self._plain else f"{piece.task_id} | {text}"
        with on_stdout():
            sys.stdout.write(text + "\n")

    def finish(self) -> None:
        """Print lines that never ended."""
        for piece, rest in self._partial.items():
            self._print_line(piece, rest)
        self._partial.clear()
        sys.stdout.flush()
