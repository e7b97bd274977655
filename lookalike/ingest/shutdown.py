"""Ctrl-C and SIGTERM as a cancel token."""

import signal
from types import FrameType, TracebackType
from typing import Self

from lookalike.schema.cancellation import CancelToken


class Shutdown:
    """Cancels its token on the first SIGINT or SIGTERM; raises KeyboardInterrupt on the second.

    Use it with `with`, on the main thread: at the end it restores the handlers that were there before.
    """

    def __init__(self) -> None:
        self.token = CancelToken()
        self.signal_number = 0
        """The first signal that arrived; 0 while there was none."""

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.token.is_cancelled:
            raise KeyboardInterrupt
        self.signal_number = number
        self.token.cancel()
