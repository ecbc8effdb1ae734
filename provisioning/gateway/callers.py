"""Who calls: the kernel says whose the other end of a local connection is; elsewhere a token does.

On a unix socket it is SO_PEERCRED. On loopback, /proc/net/tcp says which user has opened the caller's socket. A socket
that nobody has open any more is listed there as root's, with no inode: it is nobody's.
"""

from __future__ import annotations

import contextlib
import ipaddress
import pwd
import select
import socket
import struct
import sys
from pathlib import Path
from typing import NamedTuple

from provisioning.gateway.answers import Declined

Address = tuple[str, int]
_LISTS = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
_ALL_IDS = ["0", "0", "4294967295"]
_BEARER = "bearer "


class Caller(NamedTuple):
    """Who asks, and whether that is the user who works the spool."""

    operator: str
    own: bool


def uid_of(connection: socket.socket) -> int | None:
    """The user at the other end, if that is a process of this host."""
    if connection.family == socket.AF_UNIX:
        given = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return _known(struct.unpack("3i", given)[1])
    with contextlib.suppress(OSError, ValueError):
        near, far = connection.getsockname(), connection.getpeername()
        if ipaddress.ip_address(far[0]).is_loopback and ipaddress.ip_address(near[0]).is_loopback:
            return _known(_owner_of((far[0], far[1]), (near[0], near[1])))
    return None


def address_of(connection: socket.socket) -> str:
    """What can be said of a caller before anything is known: where the call comes from."""
    try:
        if connection.family == socket.AF_UNIX:
            uid = uid_of(connection)
            return "a unix socket" if uid is None else name_of(uid)
        return str(connection.getpeername()[0])
    except OSError:
        return "a caller that has gone"


def has_gone(connection: socket.socket) -> bool:
    """Whether the other end has closed the connection, or sends no more on it."""
    looked = select.poll()
    try:
        looked.register(connection.fileno(), select.POLLRDHUP)  # and errors, unasked
    except (OSError, ValueError):
        return True  # it is closed here too
    return bool(looked.poll(0))


def name_of(uid: int) -> str:
    """The login name of a user, or the number of one that has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def bearer(header: str | None) -> str | None:
    """The token of an Authorization header; None where there is none. Declined where it is of another kind."""
    if header is None:
        return None
    if header[: len(_BEARER)].lower() != _BEARER:
        raise Declined(401, "no-token", "only bearer tokens are known here", hint="Authorization: Bearer TOKEN")
    return header[len(_BEARER) :].strip()


def _known(uid: int | None) -> int | None:
    """The uid, unless it may stand for any user that this user namespace does not know."""
    if uid is None or uid != int(Path("/proc/sys/kernel/overflowuid").read_text()):
        return uid
    return uid if Path("/proc/self/uid_map").read_text().split() == _ALL_IDS else None


def _owner_of(local: Address, remote: Address) -> int | None:
    """Who has opened the socket with these ends; None where nobody has it any more."""
    wanted = {(_as_listed(local, mapped=mapped), _as_listed(remote, mapped=mapped)) for mapped in (False, True)}
    for path in _LISTS:
        with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as lines:
            for line in lines:
                fields = line.split()
                if (fields[1], fields[2]) in wanted and fields[9] != "0":
                    return int(fields[7])
    return None


def _as_listed(address: Address, *, mapped: bool) -> str:
    """An address and port as the kernel lists them: words of 32 bits in the host's own order."""
    found = ipaddress.ip_address(address[0])
    if mapped and found.version == 4:
        found = ipaddress.ip_address(f"::ffff:{found}")
    packed = found.packed
    words = (int.from_bytes(packed[i : i + 4], sys.byteorder) for i in range(0, len(packed), 4))
    return "".join(f"{word:08X}" for word in words) + f":{address[1]:04X}"
