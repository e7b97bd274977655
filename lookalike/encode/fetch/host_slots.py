"""How many fetches each host gets at once."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from lookalike.encode.fetch.limits import FetchTimeout


class HostSlots:
    """Gives each host a number of slots; whoever comes when all are taken waits."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._taken: Counter[bytes] = Counter()
        self._returned = threading.Condition()

    @contextmanager
    def take(self, host: bytes, seconds: float | None) -> Iterator[None]:
        """Hold a slot of a host, after waiting for at most so many seconds. Raises FetchTimeout."""
        with self._returned:
            if not self._returned.wait_for(lambda: self._taken[host] < self._per_host, seconds):
                raise FetchTimeout
            self._taken[host] += 1
        try:
            yield
        finally:
            with self._returned:
                self._taken[host] -= 1
                if not self._taken[host]:
                    del self._taken[host]
                self._returned.notify_all()
