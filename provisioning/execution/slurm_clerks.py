"""Threads that wait for commands of Slurm, a few at a time, so that nothing else has to."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from provisioning.execution.slurm_notes import Note

CLERKS = 4
"""So many commands of Slurm run at once."""


class Clerks:
    """Each does one errand after the other and brings back a note. They end with the process, whatever they do."""

    def __init__(self, notes: queue.SimpleQueue[Note]) -> None:
        self._notes = notes
        self._errands: queue.SimpleQueue[Callable[[], Note] | None] = queue.SimpleQueue()
        for number in range(CLERKS):
            threading.Thread(target=self._work, name=f"slurm {number}", daemon=True).start()

    def send(self, errand: Callable[[], Note]) -> None:
        """Have it done by whoever is free first."""
        self._errands.put(errand)

    def _work(self) -> None:
        while errand := self._errands.get():
            self._notes.put(errand())

    def dismiss(self) -> None:
        """Let them end once nothing is left to do."""
        for _ in range(CLERKS):
            self._errands.put(None)
