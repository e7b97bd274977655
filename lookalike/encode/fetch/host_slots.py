"""Limits how many fetches one host gets at the same time."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from lookalike.encode.fetch.limits import FetchTimeout


class HostSlots:
    """A semaphore for each host, with `per_host` slots."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._used: Counter[bytes] = Counter()
        self._returned = threading.Condition()

    @contextmanager
    def reserve(self, host: bytes, timeout: float | None) -> Iterator[None]:
        """Hold a slot of a host, after waiting for at most `timeout` seconds. Raises FetchTimeout."""
        with self._returned:
            if not self._returned.wait_for(lambda: self._used[host] < self._per_host, timeout):
                raise FetchTimeout
            self._used[host] += 1
        try:
            yield
        finally:
            with self._returned:
                self._used[host] -= 1
                if not self._used[host]:
                    del self._used[host]
                self._returned.notify_all()
