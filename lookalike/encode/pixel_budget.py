"""A limit on the memory of images that are decoded at the same time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PixelBudget:
    """Lets threads decode at the same time while their images together have at most `max_pixels` pixels.

    A larger image waits until it is the only one. So the budget bounds the memory, however many threads decode.
    """

    def __init__(self, max_pixels: int) -> None:
        self.max_pixels = max_pixels
        self._free = max_pixels
        self._returned = threading.Condition()

    @contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        """Hold `pixels` of the budget, after waiting until they are free."""
        reserved = min(pixels, self.max_pixels)
        with self._returned:
            self._returned.wait_for(lambda: self._free >= reserved)
            self._free -= reserved
        try:
            yield
        finally:
            with self._returned:
                self._free += reserved
                self._returned.notify_all()
