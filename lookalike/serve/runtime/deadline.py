"""How long a request may take, and whether anybody still waits for it; known to whatever works on it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from lookalike.schema.errors import LookalikeError


class DeadlineExceeded(LookalikeError):
    """The deadline has passed, or nobody waits for the answer any more."""


class Deadline:
    """A point in time after which an answer is of no use; sooner, once it is abandoned."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._abandoned = False

    def abandon(self) -> None:
        """Nobody waits any more."""
        self._abandoned = True

    @property
    def left(self) -> float:
        """Seconds left, 0 when there are none."""
        return 0.0 if self._abandoned else max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raise DeadlineExceeded when there is no time left."""
        if self._abandoned:
            raise DeadlineExceeded("nobody waits for the answer any more")
        if not self.left:
            raise DeadlineExceeded(f"no answer within {self.seconds:g} s; the service is busy, ask again")


_CURRENT: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def deadline_scope(deadline: Deadline) -> Iterator[None]:
    """Work within a deadline; threads that are started with this context do too."""
    token = _CURRENT.set(deadline)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_deadline() -> Deadline | None:
    """The deadline of the request that is worked on, if there is one."""
    return _CURRENT.get()
