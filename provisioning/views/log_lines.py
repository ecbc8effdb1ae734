"""Lines of logs as people and programs read them: whose each is, in colours on a terminal."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from provisioning.views.status import Page
from provisioning.views.table import cut, width_of
from provisioning.views.text import line_json, safe_block

_COLOURS = ("cyan", "green", "magenta", "blue", "yellow", "bright_cyan", "bright_green", "bright_magenta")
_NAME_WIDTH = 28


class Piece(NamedTuple):
    """The log of one attempt."""

    task_id: str
    attempt: int
    path: Path

    @property
    def name(self) -> str:
        """Whose line it is: the task, and which attempt if that is not the first."""
        return self.task_id if self.attempt == 1 else f"{self.task_id}#{self.attempt}"


def attempts_of(task: Page) -> list[tuple[str, int]]:
    """The attempts of a task of a page, those of its undo included: task and number, in their order."""
    undo = [(f"{task['task_id']}~undo", each["attempt"]) for each in task.get("undo", {}).get("attempts", ())]
    return [*((task["task_id"], each["attempt"]) for each in task["attempts"]), *undo]


class LogLines:
    """Makes a line of output of a line of a log. `plain` ones are of one log, and without its name."""

    def __init__(self, out: TextIO, *, as_json: bool, plain: bool) -> None:
        self._as_json, self._plain = as_json, plain
        self._terminal = out.isatty()
        self._out = out
        self._console: Any = None
        self._names: dict[str, str] = {}
        self._width = 0

    def expect(self, names: list[str]) -> None:
        """These names will come: they are aligned on a terminal."""
        self._width = min(_NAME_WIDTH, max(map(len, names), default=0))

    def line(self, piece: Piece, line: bytes) -> str:
        """The line for this output, ended."""
        text = line.decode(errors="replace")
        if self._as_json:
            return line_json({"task_id": piece.task_id, "attempt": piece.attempt, "line": text}) + "\n"
        text = safe_block(text) if self._terminal else text
        return f"{text}\n" if self._plain else f"{self._name(piece)} | {text}\n"

    def _name(self, piece: Piece) -> str:
        if not self._terminal:
            return piece.name
        if piece.name not in self._names:
            name = cut(piece.name, _NAME_WIDTH)
            self._names[piece.name] = self._coloured(name, piece.task_id) + " " * (self._width - width_of(name))
        return self._names[piece.name]

    def _coloured(self, name: str, task_id: str) -> str:
        """The name in the colour of its task, the same in every process; as it is where the terminal has no colours."""
        from rich.console import Console
        from rich.text import Text

        self._console = self._console or Console(file=self._out, highlight=False, width=200)
        with self._console.capture() as said:
            colour = _COLOURS[zlib.crc32(task_id.encode()) % len(_COLOURS)]
            self._console.print(Text(name, style=colour), end="")
        return str(said.get())
