"""The family of a test that plays a worker: its other children, pytest's and the tests' own, are part of no attempt."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from provisioning.execution import ending, family, running
from provisioning.processes import Sight


class Family:
    """Stands in for `execution.family` in the process of a test."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self._strangers: set[int] = set()
        for module in (running, ending):
            patched.setattr(module, "reap", self.reap)
        patched.setattr(ending, "descendants", self.descendants)

    def begin(self) -> None:
        """An attempt begins: whoever is there now does not belong to it."""
        self._strangers = set(family._children(os.getpid()))

    def reap(self, spare: int = 0) -> bool:
        left = False
        for pid in set(family._children(os.getpid())) - self._strangers:
            left |= pid == spare or os.waitpid(pid, os.WNOHANG) == (0, 0)
        return left

    def descendants(self) -> Iterator[Sight]:
        others = set(self._strangers)
        for sight in family.descendants():
            if sight.process.pid in others or sight.parent in others:
                others.add(sight.process.pid)
            else:
                yield sight
