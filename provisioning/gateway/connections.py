"""Connections, counted where they are accepted, before a byte is read: whoever has many takes no room of others.

The spool's owner has room that is kept for nobody else, callers of this host have some that callers elsewhere cannot
take, and no peer has more than its share: on this host that is a user, elsewhere an address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import os
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from provisioning.gateway.callers import address_of, uid_of
from provisioning.gateway.listening import Listening

MOST = 512
"""Connections at once; half of the files that this process may open, where that is less."""
OF_OTHERS = 3 / 4
"""Of those, so many for all who are not the owner …"""
ELSEWHERE = 1 / 2
"""… and so many for all who call from elsewhere."""
EACH = 64
"""Of one peer that is not the owner."""
TLS_SECONDS = 10.0
"""For the handshake."""
_SAY_SECONDS = 60.0
_PAUSE_SECONDS = 0.5
"""After the host has refused to open another file."""


class Peer(NamedTuple):
    """The other end, as far as it is known before anything is said: by this it is counted."""

    name: str
    own: bool
    local: bool


class Share:
    """The room of one connection; given back once, however often that is said."""

    def __init__(self, shares: Shares, peer: Peer) -> None:
        self._shares = shares
        self._peer: Peer | None = peer

    def give_back(self) -> None:
        """The connection has ended."""
        if self._peer is not None:
            self._shares.forget(self._peer)
            self._peer = None


class Shares:
    """Whose connections there are. `most` is how many there may be at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: Counter[Peer] = Counter()

    def take(self, peer: Peer) -> Share | None:
        """Room for one more of this peer; None where it has its share, or there is none left for its like."""
        others = [(each, number) for each, number in self._of.items() if not each.own]
        full = [
            self._of.total() >= self._most,
            not peer.own and self._of[peer] >= EACH,
            not peer.own and sum(number for _, number in others) >= self._most * OF_OTHERS,
            not peer.local and sum(number for each, number in others if not each.local) >= self._most * ELSEWHERE,
        ]
        if any(full):
            return None
        self._of[peer] += 1
        return Share(self, peer)

    def forget(self, peer: Peer) -> None:
        """One less of this peer."""
        self._of[peer] -= 1
        if not self._of[peer]:
            del self._of[peer]


def most_here() -> int:
    """How many connections this process can have."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if files == resource.RLIM_INFINITY else min(MOST, files // 2)


def peer_of(connection: socket.socket) -> Peer:
    """Who is at the other end. It reads a list of the kernel: not for the loop to do."""
    uid = uid_of(connection)
    if uid is not None:
        return Peer(f"uid {uid}", own=uid == os.geteuid(), local=True)
    try:
        found = ipaddress.ip_address(address_of(connection))
    except ValueError:  # it has gone, or its user is none of this host's
        return Peer("nobody who is known", own=False, local=True)
    if found.version == 6 and found.ipv4_mapped is None:
        return Peer(str(ipaddress.ip_network((int(found), 64), strict=False)), own=False, local=found.is_loopback)
    return Peer(str(found), own=False, local=found.is_loopback)


class Accepting:
    """Accepts what comes to one place, one after another, as long as there is room for whom it is of."""

    def __init__(
        self, place: Listening, shares: Shares, make: Callable[[Share], asyncio.Protocol], say: Callable[[str], None]
    ) -> None:
        self._place = place
        self._shares = shares
        self._make = make
        self._say = say
        self._said_at = -math.inf
        self._beginning: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Accept until it is cancelled; then what has not got through its handshake is closed too."""
        loop = asyncio.get_running_loop()
        self._place.socket.setblocking(False)
        try:
            while True:
                try:
                    connection, _ = await loop.sock_accept(self._place.socket)
                    await self._admit(connection)
                except ConnectionError:
                    continue
                except OSError as error:
                    self._say_seldom(f"cannot accept calls at {self._place.name}: {error.strerror}")
                    await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            for each in self._beginning:
                each.cancel()

    async def _admit(self, connection: socket.socket) -> None:
        try:
            peer = await asyncio.to_thread(peer_of, connection)
            share = self._shares.take(peer)
        except BaseException:
            connection.close()
            raise
        if share is None:
            connection.close()
            self._say_seldom(f"no room for more connections of {peer.name} at {self._place.name}: they are closed")
            return
        task = asyncio.create_task(self._begin(connection, share))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: socket.socket, share: Share) -> None:
        tls = self._place.tls
        seconds = TLS_SECONDS if tls else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._make(share), connection, ssl=tls, ssl_handshake_timeout=seconds
            )
        except OSError:
            share.give_back()  # no handshake: nobody was there to answer
        except BaseException:
            share.give_back()
            raise

    def _say_seldom(self, text: str) -> None:
        """Whoever provokes it does so often."""
        if (now := time.monotonic()) - self._said_at >= _SAY_SECONDS:
            self._said_at = now
            self._say(text)
