"""A file that is touched while a run makes progress; a health check looks at its age."""

import time
from collections.abc import Callable
from pathlib import Path

from lookalike.schema.errors import BadSettings

_INTERVAL = 1.0
"""Seconds."""


class Heartbeat:
    """Touches a file when a run makes progress, at most once a second; does nothing without a file."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._next = 0.0

    def beat(self) -> None:
        """Touch the file, unless that was done within the last second. Raises BadSettings when it cannot."""
        if self._file is None or time.monotonic() < self._next:
            return
        try:
            self._file.touch()
        except OSError as error:
            raise BadSettings(f"--heartbeat {str(self._file)!r} cannot be written: {error.strerror}") from error
        self._next = time.monotonic() + _INTERVAL

    def shown(self, show: Callable[[int], object]) -> Callable[[int], None]:
        """Return a progress callback that calls `show` and then `beat`."""

        def show_and_beat(done: int) -> None:
            show(done)
            self.beat()

        return show_and_beat
