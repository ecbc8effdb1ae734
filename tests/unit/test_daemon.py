"""How an orchestrator stops, with everything around it played."""

from __future__ import annotations

import signal
from typing import Any

from provisioning.config import Config
from provisioning.orchestrator import daemon


class Played:
    """An orchestrator with one attempt under way, its signals, and a spool that is away for the first looks."""

    descriptor = -1

    def __init__(self, asked: signal.Signals, *, away: int) -> None:
        self.asked = asked
        self.running = True
        self.draining = False
        self.story: list[str] = []
        self._away = away

    def is_here(self) -> bool:
        self._away -= 1
        return self._away < 0

    def end_running(self) -> None:
        self.story.append("ended")
        self.running = False

    def wait(self, *_: Any, **__: Any) -> None:
        self.story.append("waited")

    def drain(self) -> None:
        """Nothing is read from a pipe here."""

    def alive(self) -> None:
        """Nobody listens here."""

    def look(self) -> None:
        """Nobody is told of anything."""

    def tick(self) -> None:
        self.story.append("ticked")


def test_nothing_is_ended_while_the_spool_is_away() -> None:
    played = Played(daemon.END, away=3)
    everything: Any = played
    config = Config.load({"orchestrator.drain_seconds": 1000}, {}, euid=0)
    around = daemon._Around(everything, everything, everything, None, everything, everything, None, everything, str)
    daemon._drain(everything, around, config)
    assert played.story == ["waited", "waited", "waited", "ended", "waited", "ticked"]
