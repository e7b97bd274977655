"""How many requests run at once, and how large each body may be and how long it may take to arrive."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Message, Receive

from lookalike.serve.api.problems import RequestRefused
from lookalike.serve.middleware.paths import is_public
from lookalike.serve.runtime.metrics import Metrics
from lookalike.serve.settings import Settings

_MAX_PUBLIC_BODY = 16 * 2**10


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """The maximum size of a body, and the seconds within which all of it must arrive."""

    max_bytes: int
    timeout: float


class RequestLimits:
    """Counts the requests in flight, refuses those above the limit, and limits request bodies."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._max_in_flight = settings.max_in_flight
        self._body = BodyLimit(settings.max_body, settings.body_timeout)
        self._public_body = BodyLimit(_MAX_PUBLIC_BODY, settings.public_body_timeout)
        self._in_flight = 0
        metrics.add_gauge("lookalike_in_flight", "Requests that run or wait.", lambda: self._in_flight)

    @contextmanager
    def in_flight(self, path: str) -> Iterator[None]:
        """Count a request until the block ends. Public paths do not count: clients without a key take no slot."""
        slots = 0 if is_public(path) else 1
        self._in_flight += slots
        try:
            yield
        finally:
            self._in_flight -= slots

    def check(self, request: Request) -> None:
        """Raise RequestRefused when too many requests are in flight, or the announced body is too large."""
        if self._in_flight > self._max_in_flight:
            raise RequestRefused(
                429, f"more than {self._max_in_flight} requests at once; send this one again in a moment"
            )
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._body.max_bytes:
            raise RequestRefused(413, _describe_too_large(self._body.max_bytes))

    def limit_body(self, path: str, receive: Receive) -> Receive:
        """Return a `receive` that raises RequestRefused when the body is too large or arrives too slowly."""
        return LimitedBody(receive, self._public_body if is_public(path) else self._body)


class LimitedBody:
    """An ASGI `receive` that counts the bytes, whatever length was announced, and stops at the timeout."""

    def __init__(self, receive: Receive, limit: BodyLimit) -> None:
        self._receive = receive
        self._limit = limit
        self._received = 0
        # One timeout for the whole body: otherwise a client could keep it open with a byte now and then.
        self._end = asyncio.get_running_loop().time() + limit.timeout
        self._is_complete = False

    async def __call__(self) -> Message:
        """Receive the next message. Raises RequestRefused past the limit."""
        if self._is_complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError:
            detail = f"the request was not complete after {self._limit.timeout:g} s; send it again"
            raise RequestRefused(408, detail) from None
        self._received += len(message.get("body", b""))
        if self._received > self._limit.max_bytes:
            raise RequestRefused(413, _describe_too_large(self._limit.max_bytes))
        self._is_complete = not message.get("more_body", False)
        return message


def _describe_too_large(max_bytes: int) -> str:
    return f"the request has more than {max_bytes} bytes, the limit; send smaller images"
