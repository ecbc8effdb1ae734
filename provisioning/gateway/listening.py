"""Where the gateway listens: on this host alone, or, with TLS, wherever it is told."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import ssl
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from provisioning.config import Gateway
from provisioning.errors import Refused, SpoolUnusable, UsageError
from provisioning.ownership import refuse_unless_ours
from provisioning.storage import files

BACKLOG = 128
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})\Z")
_FIRST_TOKEN = (
    "make one first: provisioning authority token OPERATOR, and add the lines that it prints to the file that it names"
)
LOOPBACK = ("127.0.0.1", "::1")


class Place(NamedTuple):
    """One place as it was asked for: a path, or hosts and a port."""

    path: Path | None
    hosts: tuple[str, ...]
    port: int

    @property
    def local(self) -> bool:
        """Whether only processes of this host reach it."""
        return self.path is not None or all(ipaddress.ip_address(host).is_loopback for host in self.hosts)


class Listening(NamedTuple):
    """An open socket, and what it is called."""

    socket: socket.socket
    name: str
    local: bool
    tls: ssl.SSLContext | None


def parse(text: str) -> Place:
    """`unix:/PATH`, `localhost:PORT` (both 127.0.0.1 and ::1), `ADDRESS:PORT`; UsageError for anything else."""
    hint = "write localhost:9090, unix:/run/provisioning.sock, 192.0.2.1:9443 or [2001:db8::1]:9443"
    if text.startswith("unix:"):
        path = Path(text.removeprefix("unix:"))
        if not path.is_absolute() or len(os.fsencode(path)) > 107:
            raise UsageError(f"{text!r} is no absolute path of at most 107 bytes", hint=hint)
        return Place(path, (), 0)
    found = _HOST_PORT.match(text)
    if not found or int(found[2]) > 65535:
        raise UsageError(f"cannot listen on {text!r}", hint=hint)
    host = found[1].strip("[]")
    if host == "localhost":
        return Place(None, LOOPBACK, int(found[2]))
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise UsageError(f"cannot listen on {text!r}: {host} is no address", hint=hint) from None
    return Place(None, (host,), int(found[2]))


def open_all(config: Gateway, *, has_tokens: bool) -> list[Listening]:
    """Open every place of the config. Refused where one is for others, and there is no TLS or no token."""
    places = [parse(text) for text in config.listen]
    if not places:
        raise UsageError("there is nothing to listen on", hint="name a place: --listen localhost:9090")
    tls = _tls(config) if not all(place.local for place in places) else None
    if tls and not has_tokens:
        text = "others would reach it, and there is no token by which they could say who they are"
        raise Refused(text, hint=_FIRST_TOKEN)
    opened: list[Listening] = []
    try:
        for place in places:
            opened += _open(place, None if place.local else tls)
    except BaseException:
        for each in opened:
            each.socket.close()
        raise
    return opened


def _tls(config: Gateway) -> ssl.SSLContext:
    if config.certificate is None or config.key is None:
        text = "it may listen on this host alone without TLS: what others send could be read and changed on its way"
        raise Refused(text, hint="set gateway.certificate and gateway.key, or listen on localhost or a unix socket")
    refuse_unless_ours(config.key, "key of the gateway", os.geteuid())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.certificate, config.key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"cannot use the certificate {config.certificate}: {error}", hint="see its key too") from None
    return context


def _open(place: Place, tls: ssl.SSLContext | None) -> list[Listening]:
    if place.path is not None:
        return [Listening(_on_path(place.path), f"unix:{place.path}", local=True, tls=None)]
    opened: list[Listening] = []
    port = place.port
    for host in place.hosts:
        try:
            made = _on_port(host, port)
        except OSError as error:
            if host == LOOPBACK[1] and opened and error.errno in _NO_IPV6:
                continue  # nobody on this host could mean it
            for each in opened:
                each.socket.close()
            raise SpoolUnusable(f"cannot listen on {host} port {port}: {error.strerror}", hint=_in_use(port)) from None
        port = made.getsockname()[1]  # both have one port, also where any was asked for
        shown = f"[{host}]" if ":" in host else host
        opened.append(Listening(made, f"{'https' if tls else 'http'}://{shown}:{port}", place.local, tls))
    return opened


_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}


def _in_use(port: int) -> str:
    return f"see who has it: ss -ltnp sport = :{port}; or choose another: --port N"


def _on_port(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _on_path(path: Path) -> socket.socket:
    """A socket that everybody who reaches its folder may connect to: who they are, the kernel says."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o111)
    try:
        _clear(path)
        made.bind(os.fspath(path))
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        text = f"cannot listen on {path}: {error.strerror or error}"
        raise SpoolUnusable(text, hint="is its folder there, and yours?") from None
    except BaseException:
        made.close()
        raise
    finally:
        os.umask(before)
    return made


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on any more; Refused where somebody does, or it is something else."""
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise Refused(f"{path} is there and is no socket", hint="name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        try:
            asking.connect(os.fspath(path))
        except ConnectionRefusedError:
            files.remove(path)
            return
    raise Refused(f"somebody listens on {path} already", hint="is another gateway running?")


def close_all(opened: Sequence[Listening]) -> None:
    """Close them, and remove the paths that were made."""
    for each in opened:
        if each.name.startswith("unix:"):
            files.remove(Path(each.name.removeprefix("unix:")))
        each.socket.close()
