"""What stands before the routes: how many requests at once, how large, how often."""

import threading
import time
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rayrlhf.preferences.client import is_loopback
from rayrlhf.preferences.store import UnavailableError
from rayrlhf.serving.refusals import no_store, problem

HEALTH = "/v1/health"
FREE = frozenset({HEALTH, "/v1/ready"})
"""What wants no token: whether it runs."""
_FORGET_SECONDS = 600.0


class Named(Protocol):
    """Whoever calls."""

    @property
    def name(self) -> str: ...


class Bounds:
    """ASGI middleware: at most `at_once` requests in work, and no body above `body_bytes`.

    A stream of events counts until it begins: it lasts, and does nothing. Whether the server runs can always be asked.
    """

    def __init__(self, app: ASGIApp, *, at_once: int, body_bytes: int) -> None:
        self._app, self._at_once, self._body_bytes = app, at_once, body_bytes
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or path_of(scope) == HEALTH:
            await self._app(scope, self._bounded(receive), send)
            return
        if self._running >= self._at_once:
            await problem(503, "busy", "too many requests at once; try again")(scope, receive, send)
            return
        counted = 1
        self._running += counted

        def leave() -> None:
            nonlocal counted
            self._running -= counted
            counted = 0

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_stream(message):
                leave()
            await send(message)

        try:
            await self._app(scope, self._bounded(receive), send_on)
        finally:
            leave()

    def _bounded(self, receive: Receive) -> Receive:
        size = 0

        async def receive_bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._body_bytes:
                raise HTTPException(413, f"the body is larger than {self._body_bytes} bytes")
            return message

        return receive_bounded


class FromHere:
    """ASGI middleware for a server without tokens: whoever calls names it as only this machine can.

    A page that somebody has open in a browser on this machine could call it otherwise: from another origin, or, with a
    name of its own that leads here, as if from the same.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or path_of(scope) in FREE or _is_from_here(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        detail = "without tokens this server answers this machine alone, by a loopback address"
        await problem(403, "origin", detail)(scope, receive, send)


def path_of(scope: Scope) -> str:
    """The path below the application's own prefix."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _is_from_here(headers: Headers) -> bool:
    origin = headers.get("origin")
    return is_loopback(_host(f"//{headers.get('host', '')}")) and (origin is None or is_loopback(_host(origin)))


def _is_stream(start: Message) -> bool:
    return any(name == b"content-type" and kind.startswith(b"text/event-stream") for name, kind in start["headers"])


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


class Gate:
    """ASGI middleware: whoever calls has a valid token, and calls no more often than they may.

    It stands before everything that reads a body or knows a route. `request.state.caller` is who calls. What is asked
    for at paths that are `free` everyone may know.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        who: Callable[[str], "Named | None"],
        rates: "Rates",
        free: Callable[[str], bool] = lambda path: False,
    ) -> None:
        self._app, self._who, self._rates, self._free = app, who, rates, free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._free(path_of(scope)):
            await self._app(scope, receive, send)
            return
        refusal = await self._refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, send)

    async def _refusal(self, scope: Scope) -> JSONResponse | None:
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        try:
            caller = await run_in_threadpool(self._who, token if scheme.lower() == "bearer" else "")
        except UnavailableError as error:
            return no_store(error)
        if caller is None:
            refused = problem(401, "token", "no valid token")
            refused.headers["WWW-Authenticate"] = "Bearer"
            return refused
        wait = self._rates.take(caller.name)
        if wait:
            return problem(429, "rate", "too many requests; wait a little", wait)
        scope.setdefault("state", {})["caller"] = caller
        return None


class Rates:
    """A token bucket for each name: `per_second` in the long run, `burst` at once. For threads."""

    def __init__(self, per_second: float, burst: int, now: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._now = per_second, burst, now
        self._held: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()
        self._swept = now()

    def take(self, name: str) -> float:
        """Takes one from `name`'s bucket: 0, or the seconds until there is one."""
        with self._lock:
            now = self._now()
            self._sweep(now)
            level, since = self._held.get(name, (float(self._burst), now))
            level = min(self._burst, level + (now - since) * self._per_second)
            wait = max(0.0, (1 - level) / self._per_second)
            self._held[name] = (level if wait else level - 1, now)
            return wait

    def _sweep(self, now: float) -> None:
        """Forgets those whose buckets have long been full."""
        if now - self._swept > _FORGET_SECONDS:
            full = max(_FORGET_SECONDS, self._burst / self._per_second)
            self._held = {name: (level, at) for name, (level, at) in self._held.items() if now - at < full}
            self._swept = now
