"""Whose connections there may be: a share each, and room that is kept for the spool's owner."""

from __future__ import annotations

import socket

from provisioning.gateway.callers import has_gone
from provisioning.gateway.connections import EACH, Peer, Share, Shares
from tests.waiting import wait_for

OWNER = Peer("uid 0", own=True, local=True)
STRANGER = Peer("uid 65534", own=False, local=True)


def taken(shares: Shares, peer: Peer, asked: int) -> list[Share]:
    """What there is of so many."""
    return [share for _ in range(asked) if (share := shares.take(peer)) is not None]


def test_no_peer_has_more_than_its_share_and_has_it_again_when_a_connection_ends() -> None:
    shares = Shares(512)
    held = taken(shares, STRANGER, 600)
    assert len(held) == EACH
    assert shares.take(Peer("uid 1", own=False, local=True)) is not None, "nobody else's share"
    held[0].give_back()
    held[0].give_back()
    assert len(taken(shares, STRANGER, 2)) == 1, "given back once, whatever is said twice"


def test_many_peers_leave_room_for_callers_of_this_host_and_for_the_owner() -> None:
    shares = Shares(512)
    elsewhere = [taken(shares, Peer(f"192.0.2.{i}", own=False, local=False), EACH) for i in range(16)]
    assert sum(map(len, elsewhere)) == 256
    here = [taken(shares, Peer(f"uid {i}", own=False, local=True), EACH) for i in range(1, 16)]
    assert sum(map(len, here)) == 128
    assert len(taken(shares, OWNER, 600)) == 128


def test_whether_a_caller_has_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
        with ours:
            theirs.sendall(b"GET / HTTP/1.1\r\n")
            assert not has_gone(ours)
            theirs.close()
            wait_for(lambda: has_gone(ours), what="the end of the connection")
        assert has_gone(ours), "closed here as well"
