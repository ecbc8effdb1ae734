"""Threads that wait for commands of Slurm, a few at a time, so that nothing else has to."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from provisioning.execution.slurm.notes import Broken, Note

AT_ONCE = 4
"""So many commands of Slurm run at once."""


class Errands:
    """One is done after the other, and brings back a note where it has one. They end with the process."""

    def __init__(self, notes: queue.SimpleQueue[Note]) -> None:
        self._notes = notes
        self._errands: queue.SimpleQueue[Callable[[], Note | None] | None] = queue.SimpleQueue()
        for number in range(AT_ONCE):
            threading.Thread(target=self._work, name=f"slurm {number}", daemon=True).start()

    def send(self, errand: Callable[[], Note | None]) -> None:
        """Have it done by whoever is free first."""
        self._errands.put(errand)

    def _work(self) -> None:
        try:
            while errand := self._errands.get():
                if (note := errand()) is not None:
                    self._notes.put(note)
        except Exception as error:
            self._notes.put(Broken(repr(error)))  # else what it was sent for would be waited for without end
            raise

    def dismiss(self) -> None:
        """Let the threads end once nothing is left to do."""
        for _ in range(AT_ONCE):
            self._errands.put(None)
