"""Whose call is next: nobody's many calls keep another's waiting, and nobody's keep the owner's or a look at health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from provisioning.gateway.answers import Declined
from provisioning.gateway.callers import Caller

LOOKING = 2
"""So many threads at once read the spool for others than the owner: with the door's and that of health one less than
asyncio has on the smallest host, so that there always is one for the owner, and to see who calls."""
OWN_LOOKING = 4
"""For the owner."""
UNDER_WAY = 1
"""Calls of one operator that are worked on, or wait among those of others …"""
WAITING = 16
"""… and so many more that wait for these."""
STREAMS = 32
"""Of one operator at once."""
OWN_STREAMS = 256
"""Of the owner: there are connections left for other calls."""
HEALTH = "/health"


class _Operator:
    """What one operator has under way."""

    def __init__(self) -> None:
        self.calls = 0
        self.streams = 0
        self.turn = asyncio.Semaphore(UNDER_WAY)


class Turns:
    """All that waits. The owner has lanes of their own; among others it goes by who asked first, one call of each."""

    def __init__(self) -> None:
        self._operators: dict[str, _Operator] = {}
        self._of_others = asyncio.Semaphore(LOOKING)
        self._of_owner = asyncio.Semaphore(OWN_LOOKING)
        self._health = asyncio.Semaphore(1)
        self._queue = asyncio.Lock()
        """Of others who change something: the owner, who does not stand in it, waits for one of them at most."""
        self._door = asyncio.Lock()
        """The door takes one call at a time."""

    @asynccontextmanager
    async def of(self, caller: Caller) -> AsyncIterator[None]:
        """For one call of this caller. Declined where too many of theirs wait already."""
        if caller.own:
            yield
            return
        with self._known(caller) as operator:
            if operator.calls >= UNDER_WAY + WAITING:
                raise _busy(f"{caller.operator} has {operator.calls} calls under way")
            operator.calls += 1
            try:
                async with operator.turn:
                    yield
            finally:
                operator.calls -= 1

    @contextmanager
    def streaming(self, caller: Caller) -> Iterator[None]:
        """For one stream of this caller. Declined where they have too many already."""
        with self._known(caller) as operator:
            if operator.streams >= (OWN_STREAMS if caller.own else STREAMS):
                raise _busy(f"{caller.operator} follows {operator.streams} streams")
            operator.streams += 1
            try:
                yield
            finally:
                operator.streams -= 1

    @asynccontextmanager
    async def looking(self, caller: Caller, path: str = "") -> AsyncIterator[None]:
        """To read the spool."""
        others = self._health if path == HEALTH else self._of_others
        async with self._of_owner if caller.own else others:
            yield

    @asynccontextmanager
    async def changing(self, caller: Caller) -> AsyncIterator[None]:
        """To go through the door."""
        if caller.own:
            async with self._door:
                yield
        else:
            async with self._queue, self._door:
                yield

    @asynccontextmanager
    async def noting(self) -> AsyncIterator[None]:
        """To have the door keep something in the audit log."""
        async with self._queue, self._door:
            yield

    @contextmanager
    def _known(self, caller: Caller) -> Iterator[_Operator]:
        """What the caller has under way; forgotten when that is nothing."""
        operator = self._operators.setdefault(caller.operator, _Operator())
        try:
            yield operator
        finally:
            if not operator.calls and not operator.streams:
                self._operators.pop(caller.operator, None)


def _busy(text: str) -> Declined:
    return Declined(429, "busy", text, hint="wait for some of them", headers={"Retry-After": "1"})
