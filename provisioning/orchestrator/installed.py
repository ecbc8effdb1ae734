"""Nushell and the operations as one process that goes on sees them: looked for at most once a second."""

from __future__ import annotations

from collections.abc import Callable

from provisioning.execution.nulib import Nulib
from provisioning.execution.nushell import Nushell


class Installed:
    """What was found when it was last looked for."""

    def __init__(self, load: Callable[[], Nulib], boottime: Callable[[], float]) -> None:
        self._load = load
        self._boottime = boottime
        self._found: tuple[float, Nulib] | None = None

    def nulib(self) -> Nulib:
        """The operations as they were at most a second ago."""
        if self._found is None or self._found[0] + 1.0 < self._boottime():
            self._found = (self._boottime(), self._load())
        return self._found[1]

    def nu(self) -> Nushell:
        """Nushell as it was at the last look: what is planned needs nothing else of the installation."""
        return self._found[1].nu if self._found else self.nulib().nu
