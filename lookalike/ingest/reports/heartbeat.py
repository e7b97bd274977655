"""A file that shows from outside that a run gets on: a health check looks at how old it is."""

import time
from collections.abc import Callable
from pathlib import Path

from lookalike.schema.errors import BadSettings

_EVERY = 1.0


class Heartbeat:
    """Touches a file when something was done, once a second at most; without a file, does nothing."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._next = 0.0

    def beat(self) -> None:
        """Say that something was done. Raises BadSettings where the file cannot be written."""
        if self._file is None or time.monotonic() < self._next:
            return
        try:
            self._file.touch()
        except OSError as error:
            raise BadSettings(f"--heartbeat {str(self._file)!r} cannot be written: {error.strerror}") from error
        self._next = time.monotonic() + _EVERY

    def shown(self, show: Callable[[int], object]) -> Callable[[int], None]:
        """Make progress that is shown a beat as well."""

        def show_and_beat(done: int) -> None:
            show(done)
            self.beat()

        return show_and_beat
