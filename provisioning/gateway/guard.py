"""What no browser may do on somebody's behalf: reach a local door by another name, or from another site's page."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from provisioning.gateway.answers import Declined

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
HEADERS = {
    "Server": "provisioning",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer that does not say otherwise."""


def host_name(header: str) -> str:
    """A Host header without its port, in lower case."""
    name, colon, port = header.rpartition(":")
    return (name if colon and port.isdigit() else header).lower()


def check_host(headers: Mapping[str, str], known: Collection[str]) -> None:
    """Declined where the caller means another host: a name that was made to lead here is no name of ours."""
    header = headers.get("Host", "")
    if host_name(header) not in known:
        hint = "call it by the name it has here; further ones are named by gateway.hosts"
        raise Declined(421, "wrong-host", "the Host header names another host", hint=hint)


def check_site(headers: Mapping[str, str], *, scheme: str) -> None:
    """Declined where a page of another site asks. Programs send none of these headers."""
    sites, origins = _all(headers, "Sec-Fetch-Site"), _all(headers, "Origin")
    if max(len(sites), len(origins)) > 1:
        raise Declined(400, "bad-request", "Origin or Sec-Fetch-Site is there more than once", hint="send each once")
    own = f"{scheme}://{headers.get('Host', '')}".lower()
    if not {*sites} <= {"none", "same-origin"} or not {origin.lower() for origin in origins} <= {own}:
        raise Declined(403, "cross-site", "a page of another site asks", hint="open it here, or use a program")


def _all(headers: Mapping[str, str], wanted: str) -> list[str]:
    """Every value of a header, which may be there several times."""
    return [value for name, value in headers.items() if name.lower() == wanted.lower()]


def is_followed_link(method: str, headers: Mapping[str, str]) -> bool:
    """Whether somebody opens an address in a tab, as by a link in a chat: the site that had it learns nothing."""
    opened = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return opened and method == "GET" and "Origin" not in headers
