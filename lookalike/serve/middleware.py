"""What every request passes, in and out: a name for the log, the limits, the key, the headers of the answer."""

import asyncio
import time
import uuid
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lookalike.serve.api.problems import RequestRefused, problem, respond, unforeseen
from lookalike.serve.runtime.metrics import Metrics
from lookalike.serve.settings import Settings, is_loopback

COOKIE = "lookalike-key"
_ALWAYS = ("/health", "/ready")
"""Asked while all else is overloaded, and without a key."""

_OPEN = ("/login", "/static/")
"""Without a key, so within narrower bounds."""

_BODY_SECONDS = 60.0
_OPEN_SECONDS = 10.0
_OPEN_BODY = 16 * 2**10
_NOTHING_SENT = 499
"""What the metrics say of a client that went away, as nginx does."""

_log = structlog.get_logger("lookalike")


class RequestGuard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._bounds = (settings.max_body, _BODY_SECONDS)
        self.in_flight = 0
        metrics.watch("lookalike_in_flight", "Requests that are worked on or wait.", lambda: self.in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or turn it away."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = uuid.uuid4().hex[:16]
        told = _Told(send, state["request_id"])
        started = time.perf_counter()
        # Whoever has no key must not take the places of those who have one.
        counted = not scope["path"].startswith(_OPEN)
        self.in_flight += counted
        with structlog.contextvars.bound_contextvars(request_id=state["request_id"]):
            try:
                self._admit(scope)
                body = _Body(receive, *(self._bounds if counted else (_OPEN_BODY, _OPEN_SECONDS)))
                await self._app(scope, body, told)
            except RequestRefused as refused:
                found = problem(refused.status, refused.detail, state["request_id"])
                state["error"] = "RequestRefused"
                await respond(found, refused.headers)(scope, receive, told)
            except ClientDisconnect:
                state["error"] = "ClientDisconnect"
            # A mistake of ours: the log gets all of it, the guest a name to ask for.
            except Exception as error:  # noqa: BLE001
                state["error"] = type(error).__name__
                _log.exception("unforeseen")
                if not told.answered:
                    await respond(unforeseen(state["request_id"]))(scope, receive, told)
            finally:
                self.in_flight -= counted
                self._note(scope, told.status, time.perf_counter() - started)

    def _admit(self, scope: Scope) -> None:
        """Raise Refused."""
        request = Request(scope)
        path: str = scope["path"]
        if path in _ALWAYS:
            return
        if self.in_flight > self._settings.max_in_flight:
            raise RequestRefused(
                429, f"more than {self._settings.max_in_flight} requests at once; ask again in a moment"
            )
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._settings.max_body:
            raise RequestRefused(413, _too_large(self._settings.max_body))
        if not path.startswith(_OPEN):
            self._check_key(request)

    def _check_key(self, request: Request) -> None:
        keys = self._settings.keys
        if not keys.required:
            # A page of another host, whose name leads here, must not read what only this machine may.
            if not _is_own(request.headers.get("host", ""), self._settings.host):
                raise RequestRefused(
                    403, "without API keys only this machine itself is answered; set LOOKALIKE_API_KEYS"
                )
            return
        may_write = keys.may_write(_key(request))
        if may_write is None and _is_visit(request):
            raise RequestRefused(303, "the page asks for an API key first", {"Location": _login(request)})
        if may_write is None:
            raise RequestRefused(401, "an API key is needed: Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"})
        if not may_write and request.method in ("PUT", "DELETE"):
            raise RequestRefused(403, "this API key may read, but not write")

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        # The route's template, not the path: one counter for all products, and no ids of shoppers in the metrics.
        route = getattr(scope.get("route"), "path_format", "other")
        method = scope["method"] if scope["method"] in ("GET", "POST", "PUT", "DELETE", "HEAD") else "other"
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.seconds.labels(route, method).observe(seconds)
        if (error := scope["state"].get("error")) is not None:
            self._metrics.errors.labels(error).inc()
        if scope["path"] not in _ALWAYS:
            _log.info("request", method=method, route=route, status=status, ms=round(seconds * 1_000, 1))


class _Told:
    """Adds to what is sent: the request's name, and headers that keep a browser from guessing."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status = _NOTHING_SENT

    @property
    def answered(self) -> bool:
        """Whether an answer was begun."""
        return self.status != _NOTHING_SENT

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", []),
                (b"x-request-id", self._request_id.encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"referrer-policy", b"same-origin"),
                (b"cross-origin-resource-policy", b"same-origin"),
            ]
        await self._send(message)


class _Body:
    """Counts what comes in, whatever was announced, and waits for it only so long."""

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive = receive
        self._most = most
        self._left = most
        self._seconds = seconds
        # For all of it: a client that sends a byte now and then is not waited for.
        self._end = asyncio.get_running_loop().time() + seconds
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError:
            raise RequestRefused(
                408, f"the request was not complete after {self._seconds:g} s; send it again"
            ) from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise RequestRefused(413, _too_large(self._most))
        self._complete = not message.get("more_body", False)
        return message


def _key(request: Request) -> str:
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return key.strip()
    return request.headers.get("x-api-key") or request.cookies.get(COOKIE, "")


def _is_visit(request: Request) -> bool:
    """Tell whether a person with a browser wants to see the page, not a program an answer."""
    return request.url.path in ("/", "/logout") and "text/html" in request.headers.get("accept", "")


def _login(request: Request) -> str:
    """Where to enter a key, and to go on from there to the address that was asked for."""
    query = request.url.query if request.method == "GET" else ""
    return f"/login?{urlencode({'then': f'/?{query}'})}" if query else "/login"


def _is_own(host: str, bound: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name) or name == bound


def _too_large(most: int) -> str:
    return f"the request has more than {most} bytes, the limit; send smaller images"
