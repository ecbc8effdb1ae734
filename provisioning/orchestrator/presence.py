"""Whether the spool that is worked is still at its path: it may be renamed or unmounted, and another put there."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from provisioning.errors import SpoolUnusable

_log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""Between two looks for a spool that is away."""


class Presence:
    """Compares what is at the path of a spool with what was there at first.

    Locks stay with the spool wherever it goes; what is named by its path must not be done while that names nothing, or
    another spool.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._first = os.stat(root)
        self._is_here = True

    def is_same(self) -> bool:
        """Whether the spool is at its path; nothing is said, whatever is there."""
        try:
            return os.path.samestat(os.stat(self._root), self._first)
        except OSError:
            return False  # not there, or not to be reached: the same to us

    def is_here(self) -> bool:
        """Whether the spool is at its path. What changes is logged; SpoolUnusable where another spool is there."""
        here = self.is_same()
        if not here and os.path.lexists(self._root / "format"):
            here = self.is_same()  # it may have come back between the two looks
            if not here:
                _log.error("another spool is at the path of this one")
                raise SpoolUnusable(
                    f"another spool is at {self._root} now: what was begun in the one before goes on in that",
                    hint="start what works spools again, for each where it is now",
                )
        if here != self._is_here:
            self._is_here = here
            away = "the spool is no longer at its path: nothing is done until it is back"
            _log.warning("the spool is back at its path" if here else away)
        return here

    def insist(self) -> None:
        """SpoolUnusable where the spool is not at its path: for whoever has no reason to wait for it."""
        if not self.is_here():
            raise SpoolUnusable(
                f"the spool is no longer at {self._root}", hint="what was begun goes on; put the folder back"
            )
