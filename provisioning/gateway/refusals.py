"""Calls that were refused: which of them the audit log is told, and when a caller has had enough of them.

Both are bounded, whoever calls however often. The time is an argument; nothing is done here.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

KEPT_SECONDS = 300.0
KEPT_CALLERS = 32
"""In that time at most so many callers are told apart, and so twice as many records written."""
OTHERS = "others"
MOST = 60
"""Refused calls of one caller that are answered at once …"""
PER_SECONDS = 60.0
"""… and after that so many in this time."""
_KNOWN = 4096


class Refusal(NamedTuple):
    """A record for the audit log."""

    who: str
    code: str
    call: str
    """The first of them; empty where the record says how many followed."""
    times: int


class Refusals:
    """Of each caller and reason the first is told at once, and how many followed later.

    Later is the next refusal of anybody once the time is over, or a clean stop, which asks what is `due`: nothing here
    wakes by itself, and who is killed takes that count along.
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._followed: dict[tuple[str, str], int] = {}

    def add(self, who: str, code: str, call: str, now: float) -> list[Refusal]:
        """A call was declined: what is to be kept now."""
        followed = self.due() if now - self._since >= KEPT_SECONDS else []
        if not self._followed:
            self._since = now
        key = (who, code)
        if key not in self._followed and len(self._followed) >= KEPT_CALLERS:
            key = (OTHERS, "")
        if key in self._followed:
            self._followed[key] += 1
            return followed
        self._followed[key] = 0
        return [*followed, Refusal(*key, call, 1)]

    def due(self) -> list[Refusal]:
        """How many followed each first one; then it begins anew."""
        followed = [Refusal(*key, "", times) for key, times in self._followed.items() if times]
        self._followed.clear()
        return followed


class Allowance:
    """How many refused calls each caller has left: each takes one, and time gives them back."""

    def __init__(self) -> None:
        self._taken: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """How many were taken, and when that was so; the caller that was refused last comes last."""

    def take(self, who: str, now: float) -> None:
        """A call of this caller was refused."""
        self._taken[who] = min(float(MOST), self._level(who, now) + 1), now
        self._taken.move_to_end(who)
        if len(self._taken) > _KNOWN:
            self._taken.popitem(last=False)

    def wait_seconds(self, who: str, now: float) -> float:
        """For so long nothing of this caller is answered; 0 where it is."""
        return max(0.0, (self._level(who, now) + 1 - MOST) * PER_SECONDS / MOST)

    def _level(self, who: str, now: float) -> float:
        taken, at = self._taken.get(who, (0.0, now))
        return max(0.0, taken - (now - at) * MOST / PER_SECONDS)
