"""What bounds a fetch; and its deadline and cancellation, known to the thread that works on it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

MAX_PER_HOST = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a fetch: bytes, seconds, tries.

    `connect` is for a connection, `read` from one byte to the next, `whole` for all of it, with redirects and retries.
    `per_host` is how many fetches one host gets at once.
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


# A connection serves many fetches, and httpcore tells its stream nothing of the request: so the thread has to know.
_END: ContextVar[tuple[float, threading.Event]] = ContextVar("end_of_fetch")


@contextmanager
def until(deadline: float, cancelled: threading.Event) -> Iterator[None]:
    """Work until a time of `time.monotonic`, or until `cancelled` is set."""
    token = _END.set((deadline, cancelled))
    try:
        yield
    finally:
        _END.reset(token)


def seconds_left(most: float | None = None) -> float:
    """Return the seconds until the deadline, `most` if there are more. Raises FetchTimeout, Cancelled."""
    deadline, cancelled = _END.get()
    if cancelled.is_set():
        raise Cancelled
    left = deadline - time.monotonic()
    if left <= 0:
        raise FetchTimeout
    return left if most is None else min(left, most)
