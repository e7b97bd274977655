"""The deadline of a request, as a context variable that all code working on the request can check."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from lookalike.schema.errors import LookalikeError


class DeadlineExceeded(LookalikeError):
    """The deadline of a request has passed, or its client has gone.

    Remedy: send the request again; if it happens often, raise `--deadline` or add workers.
    """


class Deadline:
    """A time limit for one request. `abandon` ends it early, when nothing waits for the result any more."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._is_abandoned = False

    def abandon(self) -> None:
        """End the deadline now, because nothing waits for the result."""
        self._is_abandoned = True

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline; 0 after it."""
        return 0.0 if self._is_abandoned else max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raise DeadlineExceeded if no time is left."""
        if self._is_abandoned:
            raise DeadlineExceeded("the request was abandoned: its client has gone, or it has already timed out")
        if not self.seconds_left:
            raise DeadlineExceeded(timeout_message(self.seconds))


_CURRENT: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def deadline_scope(deadline: Deadline) -> Iterator[None]:
    """Set the current deadline. A thread sees it if it runs in a copy of this context."""
    token = _CURRENT.set(deadline)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_deadline() -> Deadline | None:
    """Return the deadline of the current request, None outside a request."""
    return _CURRENT.get()


def check_deadline() -> None:
    """Raise DeadlineExceeded if the current request has no time left. Does nothing outside a request."""
    deadline = current_deadline()
    if deadline is not None:
        deadline.check()


def timeout_message(seconds: float) -> str:
    """Say that a request took longer than its limit."""
    return f"no answer within {seconds:g} s: the service is busy; try again"
