"""Images uploaded on the page: small copies in memory, so that a URL can name them for a while."""

import hashlib
import secrets
import threading
from collections.abc import MutableMapping

from cachetools import LRUCache

from lookalike.encode.decode import open_image
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.serve.runtime.thumbnails import make_thumbnail

EDGE = 512
"""The longer edge of a copy in pixels, larger than any encoder's input. A phone's photo becomes some 50 kB."""

_MAX_BYTES = 32 * 2**20


class UploadCache:
    """Caches the latest used copies, under names that cannot be guessed. Safe to use from several threads.

    `max_bytes` must have room for one copy, which has less than 1 MB.
    """

    def __init__(self, max_pixels: int, max_bytes: int = _MAX_BYTES) -> None:
        self._budget = PixelBudget(max_pixels)
        self._key = secrets.token_bytes(32)
        self._copies: MutableMapping[str, bytes] = LRUCache(max_bytes, getsizeof=len)
        self._lock = threading.Lock()

    def add(self, content: bytes) -> str:
        """Cache a copy of an image, a JPEG of at most 512×512; returns its name. Raises BadImage."""
        image = open_image(content, self._budget.max_pixels)
        with self._budget.reserve(image.width * image.height):
            copy = make_thumbnail(image, EDGE)
        # A keyed hash: the same image has the same name, but nobody can compute the name of an image.
        name = hashlib.blake2b(copy, key=self._key, digest_size=16).hexdigest()
        with self._lock:
            self._copies[name] = copy
        return name

    def get(self, name: str) -> bytes | None:
        """Return the copy with this name, None if it is not cached any more."""
        with self._lock:
            return self._copies.get(name)
