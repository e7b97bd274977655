"""What was looked up a moment ago."""

import threading
import time
from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class TtlCache(Generic[Value]):
    """Values by key, each kept for `seconds`, the latest `most` of them; safe to use from several threads."""

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._kept: OrderedDict[str, tuple[float, Value]] = OrderedDict()
        self._lock = threading.Lock()
        self.forgotten = 0
        """Grows with everything forgotten: what was looked up before that may be what was forgotten."""

    def get(self, key: str) -> Value | None:
        """Recall a value, None when there is none, or only an old one."""
        with self._lock:
            kept = self._kept.get(key)
        return kept[1] if kept is not None and kept[0] > time.monotonic() else None

    def put(self, key: str, value: Value, forgotten: int) -> None:
        """Keep a value; `forgotten` is what that was before the value was looked up."""
        with self._lock:
            if not self._seconds or forgotten != self.forgotten:
                return
            self._kept[key] = (time.monotonic() + self._seconds, value)
            self._kept.move_to_end(key)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def forget(self, key: str) -> None:
        """Keep it no longer."""
        with self._lock:
            self.forgotten += 1
            self._kept.pop(key, None)
