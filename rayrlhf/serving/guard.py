"""What stands before the routes: how many requests at once, how large, how often."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rayrlhf.preferences.store import UnavailableError
from rayrlhf.serving.refusals import no_store, problem

FREE = frozenset({"/v1/health", "/v1/ready"})
"""What wants no token: whether it runs."""
_FORGET_SECONDS = 600.0


class Named(Protocol):
    """Whoever calls."""

    @property
    def name(self) -> str: ...


class Bounds:
    """ASGI middleware: at most `at_once` requests in work, and no body above `body_bytes`.

    Streams of events are left out of the count: they last, and do nothing.
    """

    def __init__(self, app: ASGIApp, *, at_once: int, body_bytes: int, uncounted: str) -> None:
        self._app, self._at_once, self._body_bytes, self._uncounted = app, at_once, body_bytes, uncounted
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].endswith(self._uncounted):
            await self._app(scope, self._bounded(receive), send)
            return
        if self._running >= self._at_once:
            await problem(503, "busy", "too many requests at once; try again")(scope, receive, send)
            return
        self._running += 1
        try:
            await self._app(scope, self._bounded(receive), send)
        finally:
            self._running -= 1

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
        if scope["type"] != "http" or self._free(scope["path"].removeprefix(scope.get("root_path", ""))):
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
