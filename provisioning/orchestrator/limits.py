"""Who waits for targets and for room in groups, and whose turn it is: first come, first served, over all workflows.

Who waits stands in the line of everything that it wants, in all of them in the same order, and takes all at once when
it is the first in each: the one that has waited longest always can, once what it wants is free.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path

from provisioning.execution.executor import Key
from provisioning.storage.limits import Look, Wanted

TURN_SECONDS = 1.0
"""Between two looks at what other processes hold."""

Waiting = tuple[str, str]
"""A workflow and its task."""


class Limits:
    """What the attempts of this process hold or are about to, and who waits for it."""

    def __init__(self, locks: Path) -> None:
        self._look = Look(locks)
        self._held: dict[Key, tuple[Wanted, ...]] = {}
        self._used: Counter[str] = Counter()
        self._exclusive: set[str] = set()
        self._lines: dict[str, deque[Waiting]] = {}
        self._waiting: dict[Waiting, tuple[Wanted, ...]] = {}

    def in_the_way(self, waiting: Waiting, wanted: Sequence[Wanted]) -> str:
        """What of it cannot be had now, by name; nothing where all can."""
        for each in wanted:
            line = self._lines.get(each.name)
            if (line and line[0] != waiting) or not self._is_free(each):
                return each.name
        return ""

    def _is_free(self, wanted: Wanted) -> bool:
        used = self._used[wanted.name]
        if used >= wanted.room if wanted.exclusive else wanted.name in self._exclusive:
            return False
        return not self._look.in_the_way([wanted])

    def wait(self, waiting: Waiting, wanted: Sequence[Wanted]) -> None:
        """Stand in line for all of it."""
        if waiting not in self._waiting:
            self._waiting[waiting] = tuple(wanted)
            for each in wanted:
                self._lines.setdefault(each.name, deque()).append(waiting)

    def _leave(self, waiting: Waiting) -> None:
        for each in self._waiting.pop(waiting, ()):
            line = self._lines[each.name]
            if line[0] == waiting:
                line.popleft()
            else:
                line.remove(waiting)
            if not line:
                del self._lines[each.name]

    def take(self, key: Key, wanted: Sequence[Wanted]) -> None:
        """The attempt is about to start, and takes this in its worker."""
        self._leave((key.workflow_id, key.task_id))
        if key in self._held:
            return  # it is seen through once more
        if wanted:
            self._held[key] = tuple(wanted)
        for each in wanted:
            self._used[each.name] += 1
            if each.exclusive and each.room == 1:
                self._exclusive.add(each.name)

    def release(self, key: Key) -> None:
        """The attempt is over."""
        for each in self._held.pop(key, ()):
            self._used[each.name] -= 1
            if not self._used[each.name]:
                del self._used[each.name]
                self._exclusive.discard(each.name)

    def forget(self, workflow_id: str) -> None:
        """Nothing of the workflow waits any more."""
        for waiting in [each for each in self._waiting if each[0] == workflow_id]:
            self._leave(waiting)

    def next_turns(self, wants: Callable[[str, str], bool]) -> list[Waiting]:
        """Those who need not wait any longer.

        Whoever is the first in a line and does not want to start now, as `wants` says, leaves it, and is among them: a
        workflow that is paused may be resumed.
        """
        left = []
        for line in list(self._lines.values()):
            while line and not wants(*line[0]):
                left.append(line[0])
                self._leave(line[0])
        firsts = {line[0]: None for line in self._lines.values()}
        return left + [first for first in firsts if not self.in_the_way(first, self._waiting[first])]

    @property
    def waited_for(self) -> bool:
        """Whether somebody waits."""
        return bool(self._lines)

    def close(self) -> None:
        """Look at nothing more."""
        self._look.close()
