"""Events of a workflow as server-sent events: what `events.jsonl` says, from where the reader was, and its end.

The id of an event is the byte behind its line, so a reader that comes again with Last-Event-ID misses and repeats
nothing. A stream costs a look at one file's size a few times a second, in this process and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from pathlib import Path

from aiohttp import web

from provisioning.errors import NotFound, ProvisioningError
from provisioning.gateway import guard
from provisioning.gateway.answers import Declined
from provisioning.gateway.site import Call
from provisioning.storage import logs
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import Spool
from provisioning.views.status import OVER, shown_state
from provisioning.views.text import line_json

LOOK_SECONDS = 0.25
ALIVE_SECONDS = 15.0
"""After so long a silence a comment says that the stream goes on, and a reader that has gone is noticed."""
WRITE_SECONDS = 30.0
"""So long a reader may take nothing before it is given up."""
PART_BYTES = 256 << 10
LINE_BYTES = PART_BYTES * 64
"""No line of a file that is in order is longer."""
_NOTHING_MORE = 204
"""Tells a browser's EventSource not to come again."""


class Tail:
    """The events of one workflow, read on from a byte; it may be claimed, and so moved, meanwhile."""

    def __init__(self, spool: Spool, workflow_id: str, offset: int) -> None:
        self._spool = spool
        self.workflow_id = workflow_id
        self.offset = self._known(offset)

    def _path(self) -> str:
        path = self._spool.folder_path(self.workflow_id)
        if path is None:
            raise NotFound(f"workflow {self.workflow_id} went away", hint="see /workflows")
        return f"{path}/events.jsonl"

    def _known(self, offset: int) -> int:
        """The offset, if a line ends there; else 0: it is of another file."""
        path = self._path()
        try:
            if 0 < offset <= os.stat(path).st_size and logs.read_from(Path(path), offset - 1, 1) == b"\n":
                return offset
        except FileNotFoundError:
            pass
        return 0

    def skip(self) -> None:
        """Go on behind what is there; a line that is being written is not skipped."""
        with contextlib.suppress(FileNotFoundError):
            path, limit = Path(self._path()), PART_BYTES
            size = os.stat(path).st_size
            begin = max(0, size - limit)
            end = logs.read_from(path, begin, limit).rfind(b"\n")
            self.offset = begin + end + 1 if end >= 0 else 0

    def has_grown(self) -> bool:
        """Whether there is anything behind what was read."""
        try:
            return os.stat(self._path()).st_size > self.offset
        except FileNotFoundError:
            return False

    def read(self) -> bytes:
        """The next events, as the stream says them; nothing where no line is complete."""
        limit, data = PART_BYTES, b""
        while b"\n" not in data and len(data) < limit <= LINE_BYTES:
            data = logs.read_from(Path(self._path()), self.offset, limit)
            limit = limit * 8 if len(data) == limit else 0
        said = []
        for line in data.split(b"\n")[:-1]:
            self.offset += len(line) + 1
            said.append(b"id: %d\ndata: %s\n\n" % (self.offset, line.replace(b"\r", b" ")))
        return b"".join(said)

    def end(self) -> str | None:
        """The state of the workflow, if nothing more comes of it."""
        path = self._spool.folder_path(self.workflow_id)
        checkpoint = WorkflowFolder(path).workflow() if path else None
        state = shown_state(checkpoint) if checkpoint else ""
        return state if state in OVER else None


async def events(call: Call, request: web.Request) -> web.StreamResponse:
    """The stream: what has happened and what happens, until the workflow has ended."""
    turns = call.site.turns
    async with turns.of(call.caller), turns.looking(call.caller):
        tail = await asyncio.to_thread(_begun, call)
    if tail is None:
        return web.Response(status=_NOTHING_MORE)
    response = web.StreamResponse(headers={**guard.HEADERS, "Content-Type": "text/event-stream"})
    async with asyncio.timeout(WRITE_SECONDS):
        await response.prepare(request)
        await response.write(b"retry: 2000\n\n")
    try:
        await _follow(call, tail, request, response)
    except TimeoutError:
        give_up(request)
    except (ProvisioningError, OSError):
        pass  # the reader has gone; or the workflow, or what is wrong with it is said to who comes again
    return response


def _begun(call: Call) -> Tail | None:
    """Where the stream begins; None where the reader has had all of it."""
    tail = Tail(call.site.spool, call.folder().workflow_id, _offset(call))
    if call.last_event is None and call.query["from"] == "now":
        tail.skip()
    return None if call.last_event is not None and not tail.has_grown() and tail.end() else tail


def give_up(request: web.BaseRequest) -> None:
    """End the connection at once; what the reader has not taken is thrown away, by the kernel as well."""
    if request.transport is not None and (found := request.transport.get_extra_info("socket")):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()


def _offset(call: Call) -> int:
    text = call.last_event or "0"
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise Declined(400, "bad-event-id", "Last-Event-ID is no id of an event here", hint="leave it out")
    return int(text)


async def _follow(call: Call, tail: Tail, request: web.Request, response: web.StreamResponse) -> None:
    spoke_at, end = time.monotonic(), None
    while not call.site.stopping.is_set() and request.transport is not None:
        if tail.has_grown() and (part := await asyncio.to_thread(tail.read)):
            end = None
        elif end:
            part = b"event: end\ndata: %s\n\n" % line_json({"state": end}).encode()
        else:
            end = tail.end()  # said at the next look: the last event comes after the state that it tells of
            part = b": alive\n\n" if time.monotonic() - spoke_at >= ALIVE_SECONDS else b""
        if part:
            spoke_at = time.monotonic()
            async with asyncio.timeout(WRITE_SECONDS):
                await response.write(part)
        if part.startswith(b"event: end"):
            return
        if not part or end:
            await _pause(call.site.stopping)


async def _pause(stopping: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await stopping.wait()
    except TimeoutError:
        pass
