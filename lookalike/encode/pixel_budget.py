"""A bound on the memory of images that are decoded at the same time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PixelBudget:
    """Lets threads decode at the same time as long as their images together have at most `most` pixels.

    A larger image waits until it is alone: memory is bounded by the budget, not by threads times large images.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._free = most
        self._returned = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Hold `pixels` of the budget, waiting until they are free."""
        held = min(pixels, self.most)
        with self._returned:
            self._returned.wait_for(lambda: self._free >= held)
            self._free -= held
        try:
            yield
        finally:
            with self._returned:
                self._free += held
                self._returned.notify_all()
