"""The limits of fetches; and the scope of one fetch: its deadline, and the event that cancels it.

httpcore's network streams know nothing of the request that they serve. So a fetch runs in a `fetch_scope`, and the
streams read its deadline and its event from there: a context variable of the thread that fetches.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

MAX_PER_HOST = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a fetch, in bytes, seconds and attempts.

    `connect` is for a connection, `read` from one byte to the next, `whole` for all, with redirects and retries.
    `per_host` is how many fetches one host gets at the same time.
    """

    max_bytes: int
    connect: float = 10.0
    read: float = 20.0
    whole: float = 120.0
    attempts: int = 4
    redirects: int = 10
    per_host: int = MAX_PER_HOST


class FetchTimeout(Exception):
    """The deadline of a fetch has passed."""


class Cancelled(Exception):
    """The caller has cancelled its fetches."""


@dataclass(frozen=True, slots=True)
class _FetchScope:
    """When a fetch must end, by `time.monotonic`, and what cancels it before."""

    deadline: float
    cancelled: threading.Event


_SCOPE: ContextVar[_FetchScope] = ContextVar("fetch_scope")


@contextmanager
def fetch_scope(deadline: float, cancelled: threading.Event) -> Iterator[None]:
    """Bound the fetch of this thread: until `deadline`, a time of `time.monotonic`, and until `cancelled` is set."""
    token = _SCOPE.set(_FetchScope(deadline, cancelled))
    try:
        yield
    finally:
        _SCOPE.reset(token)


def check_scope() -> None:
    """Raise Cancelled or FetchTimeout when the fetch of this thread must end."""
    _seconds_left()


def timeout_within_scope(timeout: float) -> float:
    """Return `timeout`, or the seconds until the deadline if there are fewer. Raises Cancelled, FetchTimeout."""
    return min(timeout, _seconds_left())


def _seconds_left() -> float:
    scope = _SCOPE.get()
    if scope.cancelled.is_set():
        raise Cancelled
    seconds = scope.deadline - time.monotonic()
    if seconds <= 0:
        raise FetchTimeout
    return seconds
