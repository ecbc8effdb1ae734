"""The gateway as a process: one thread that speaks HTTP, threads that read the spool, and limits for whoever calls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from provisioning.core.bearer import Token, operator_of
from provisioning.errors import ProvisioningError, SpoolUnusable
from provisioning.gateway import guard, page
from provisioning.gateway.answers import JSON, Declined, failure, of_http, success_text, too_many
from provisioning.gateway.callers import Caller, address_of, bearer, has_gone, name_of, uid_of
from provisioning.gateway.connections import Accepting, Share, Shares, most_here
from provisioning.gateway.listening import Listening, close_all
from provisioning.gateway.refusals import Allowance, Refusal, Refusals
from provisioning.gateway.routes import ROUTES, Route
from provisioning.gateway.site import Call, Site, Text
from provisioning.gateway.streams import give_up
from provisioning.gateway.tokens import read_tokens
from provisioning.views.text import safe

HEADER_SECONDS = 15.0
"""So long a caller may take for a request's line and headers, and be idle between two requests."""
BODY_SECONDS = 30.0
SEND_SECONDS = 30.0
LINGER_SECONDS = 2.0
"""So long what is left of a body is taken and thrown away, for the caller to read why."""
CLOSE_SECONDS = 3.0
GONE = "gone"
"""The code where nobody is left to answer."""
PAGE = "/"
"""Where the page is."""

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Connection(web.RequestHandler):
    """One connection. What is no HTTP is answered in our form too."""

    __slots__ = ("_share",)

    def __init__(self, manager: web.Server, share: Share, **limits: Any) -> None:
        super().__init__(manager, **limits)
        self._share = share

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room for another one."""
        self._share.give_back()
        super().connection_lost(exc)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to what never came to a route."""
        text = "the request is no HTTP that is understood here" if status == 400 else "internal error"
        answer = failure(Declined(status, "bad-request" if status == 400 else "internal", text))
        answer.force_close()
        return answer


class Gateway:
    """Answers calls."""

    def __init__(self, site: Site) -> None:
        self._site = site
        listen = {guard.host_name(each) for each in site.config.gateway.listen if not each.startswith("unix:")}
        self._files = page.read_files()
        self._refusals, self._allowance = Refusals(), Allowance()
        self._hosts = guard.LOCAL_HOSTS | listen | {each.lower() for each in site.config.gateway.hosts}

    def application(self) -> web.Application:
        """All routes and the files of the page, behind what every call has to pass."""
        app = web.Application(client_max_size=self._site.config.gateway.body_bytes, middlewares=[self._in_our_form])
        for route in ROUTES:
            methods = [route.method, *(["HEAD"] if route.method == "GET" and route.look is not None else [])]
            for method in methods:
                app.router.add_route(method, route.pattern, self._answering(route), expect_handler=_expected)
        for path, file in self._files.items():
            app.router.add_get(path, _answering_with(file), expect_handler=_expected)  # and HEAD
        return app

    @web.middleware
    async def _in_our_form(self, request: web.Request, handler: Answering) -> web.StreamResponse:
        """Every answer: what must hold before, our headers, our form of errors, and a reader that takes it in time."""
        response = await self._answer(request, handler)
        if 400 <= response.status < 500 and response.status != HTTPStatus.TOO_MANY_REQUESTS:
            response = await self._refused(request, response)
        if not response.prepared:
            for name, value in guard.HEADERS.items():
                response.headers.setdefault(name, value)
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            give_up(request)
        return response

    async def _answer(self, request: web.Request, handler: Answering) -> web.StreamResponse:
        request["who"] = "a caller that has gone"
        try:
            request["who"] = address_of(_socket_of(request))
            self._check(request)
            if request.path not in self._files:  # those are for everybody: no token goes with an address
                caller = request["caller"] = await asyncio.to_thread(self._caller, request)
                request["who"] = caller.operator
                seconds = 0.0 if caller.own else self._allowance.wait_seconds(caller.operator, time.monotonic())
                if seconds:
                    return too_many(seconds)
            return await handler(request)
        except ProvisioningError as error:
            if isinstance(error, Declined):
                request["declined"] = error.code
            return failure(error)
        except web.HTTPException as error:
            return of_http(error)
        except ConnectionError:
            raise
        except OSError as error:
            self._site.say(safe(f"{request.method} {request.path}: {error}"))
            return failure(SpoolUnusable(f"the host refuses: {error.strerror}", hint="see: provisioning spool check"))
        except Exception as error:  # noqa: BLE001 - whatever one call leads to is that call's matter
            self._site.say(safe(f"internal error: {request.method} {request.path}: {type(error).__name__}: {error}"))
            return failure(ProvisioningError("internal error", hint="the gateway has said more on its own stderr"))

    async def _refused(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        """Count a refused call, and keep who was not let in. The owner's mistakes are nobody's attack,
        and who has gone before the answer was not refused anything.
        """
        caller, who, now = request.get("caller"), request["who"], time.monotonic()
        if (caller is not None and caller.own) or request.get("declined") == GONE:
            return response
        seconds = self._allowance.wait_seconds(who, now)
        self._allowance.take(who, now)
        if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) and "declined" in request:
            called = f"{request.method} {request.path}"[:200]
            await self._keep(self._refusals.add(who, request["declined"], called, now))
        return too_many(seconds) if seconds and caller is None else response

    async def _keep(self, refusals: Sequence[Refusal]) -> None:
        """Put them into the audit log."""
        for each in refusals:
            try:
                async with self._site.turns.noting():
                    await asyncio.to_thread(self._site.door.declined, *each)
            except (ProvisioningError, OSError) as error:
                self._site.say(safe(f"not in the audit log: {each.who} was declined ({each.code}): {error}"))

    async def close(self) -> None:
        """Say what has not been said yet."""
        await self._keep(self._refusals.due())

    def _check(self, request: web.Request) -> None:
        headers, connection = request.headers, _socket_of(request)
        if connection.family != socket.AF_UNIX:
            guard.check_host(headers, self._hosts)
        if not (request.path == PAGE and guard.is_followed_link(request.method, headers)):
            guard.check_site(headers, scheme=request.scheme)

    def _caller(self, request: web.Request) -> Caller:
        """Who calls; Declined where that is nobody who may."""
        door = self._site.door
        if (token := bearer(request.headers.get("Authorization"))) is not None:
            operator = operator_of(token, self._tokens())
            if operator is None:
                raise Declined(401, "unknown-token", "this token is not known", hint="ask for a new one")
            request["who"] = operator
            return self._admitted(operator, own=operator == door.own)
        uid = uid_of(_socket_of(request))
        if uid is None and has_gone(_socket_of(request)):
            raise Declined(400, GONE, "the caller has gone")
        if uid is None:
            hint = "send a token, or call from a process of this host that stays until it has the answer"
            raise Declined(401, "unknown-caller", "it is not known who calls", hint=hint)
        if uid == os.geteuid():
            return Caller(door.own, own=True)
        operator = request["who"] = name_of(uid)
        return self._admitted(operator, own=False)

    def _admitted(self, operator: str, *, own: bool) -> Caller:
        """The caller; Declined where no grant names them, or another user has the owner's name."""
        if not own and (operator == self._site.door.own or not self._site.door.admits(operator)):
            hint = "the owner of the spool and those with a grant may; see: provisioning authority explain"
            raise Declined(403, "not-granted", f"{operator} may not ask anything here", hint=hint)
        return Caller(operator, own)

    def _tokens(self) -> tuple[Token, ...]:
        try:
            return read_tokens(self._site.config.paths.tokens)
        except ProvisioningError as error:
            self._site.say(safe(f"no token is known: {error.message}"))  # not to callers, who are nobody yet
            raise Declined(503, "no-tokens", "tokens cannot be checked now", hint="tell its administrator") from None

    def _answering(self, route: Route) -> Answering:
        async def answer(request: web.Request) -> web.StreamResponse:
            caller, turns = request["caller"], self._site.turns
            if route.stream is not None:
                with turns.streaming(caller):
                    return await route.stream(await self._call(route, request), request)
            async with turns.of(caller):  # before its body is read: nobody has the bodies of all their calls here
                call = await self._call(route, request)
                async with turns.changing(caller) if route.method == "POST" else turns.looking(caller, route.path):
                    found = await asyncio.to_thread(_made, route, call)
            headers = {**found.headers, "Content-Type": f"{found.kind}; charset=utf-8"}
            return web.Response(body=found.data, status=202 if route.method == "POST" else 200, headers=headers)

        return answer

    async def _call(self, route: Route, request: web.Request) -> Call:
        body = b""
        if (request.content_length or 0) > self._site.config.gateway.body_bytes:
            raise web.HTTPRequestEntityTooLarge(self._site.config.gateway.body_bytes, request.content_length or 0)
        if request.body_exists:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await request.read()
            except TimeoutError:
                raise Declined(408, "too-slow", f"the body takes longer than {BODY_SECONDS:g} s") from None
            except web.RequestPayloadError as error:
                hint = "see Content-Length and Content-Encoding"
                raise Declined(400, "bad-body", f"the body is not what its headers say: {error}", hint=hint) from None
        media = request.content_type if body else ""
        if body and media not in route.media:
            hint = f"Content-Type: {' or '.join(route.media)}" if route.media else "send none"
            raise Declined(415, "media-type", f"no body of type {media} is taken here", hint=hint)
        return Call(
            self._site,
            request["caller"],
            {"id" if name == "task_of" else name: value for name, value in request.match_info.items()},
            route.asked(list(request.query.items())),
            body,
            media,
            request.headers.get("Idempotency-Key"),
            request.headers.get("Last-Event-ID"),
        )


async def _expected(request: web.Request) -> web.StreamResponse | None:
    """Tell who waits for it to send the body; nothing else can be expected."""
    said = request.headers.get("Expect", "")
    if said.lower() != "100-continue":
        text = f"nobody here can do what is expected: {said[:64]!r}"
        answer = failure(Declined(417, "expectation-failed", text, hint="leave out Expect, or say 100-continue"))
        answer.headers.update(guard.HEADERS)
        return answer
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return None


def _answering_with(file: page.File) -> Answering:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=file.data, headers={**page.HEADERS, "Content-Type": f"{file.kind}; charset=utf-8"})

    return answer


def _made(route: Route, call: Call) -> Text:
    """What a route answers."""
    assert route.look is not None
    found = route.look(call)
    return found if isinstance(found, Text) else Text(success_text(found).encode(), JSON)


def _socket_of(request: web.BaseRequest) -> Any:
    """The socket of the call; Declined where the caller has gone."""
    found = request.transport.get_extra_info("socket") if request.transport is not None else None
    if found is None:
        raise Declined(400, GONE, "the caller has gone")
    return found


def serve(site: Site, opened: Sequence[Listening], ready: Callable[[], None]) -> None:
    """Answer calls until SIGTERM or SIGINT; `ready` is called once it does."""
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # what callers do and do wrong is no matter of a log
    try:
        asyncio.run(_serve(site, opened, ready))
    finally:
        close_all(opened)


async def _serve(site: Site, opened: Sequence[Listening], ready: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, site.stopping.set)
    gateway = Gateway(site)
    runner = web.AppRunner(gateway.application(), handle_signals=False, shutdown_timeout=CLOSE_SECONDS)
    await runner.setup()
    manager = runner.server
    assert manager is not None

    access = logging.getLogger("aiohttp.access")

    def connection(share: Share) -> asyncio.Protocol:
        limits = {"keepalive_timeout": HEADER_SECONDS, "lingering_time": LINGER_SECONDS}
        return Connection(manager, share, loop=loop, access_log=access, **limits)

    shares = Shares(most_here())
    accepting = [asyncio.create_task(Accepting(each, shares, connection, site.say).run()) for each in opened]
    ready()
    await site.stopping.wait()
    for task in accepting:
        task.cancel()
    await asyncio.wait(accepting)
    for each in opened:
        each.socket.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2 * CLOSE_SECONDS):
            await runner.cleanup()
    await gateway.close()
