"""Images that were asked with on the page: small copies in memory, so that an address can name them for a while."""

import hashlib
import secrets
import threading
from collections import OrderedDict

from lookalike.encode.decode import open_image
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.serve.runtime.thumbnails import thumbnail

EDGE = 512
"""More than any encoder looks at; a photo of a phone becomes some 50 kB."""

_KEPT_BYTES = 32 * 2**20


class UploadCache:
    """Keeps small copies under names that cannot be guessed, the latest used ones; safe to use from several threads."""

    def __init__(self, max_pixels: int, most_bytes: int = _KEPT_BYTES) -> None:
        self._budget = PixelBudget(max_pixels)
        self._most_bytes = most_bytes
        self._key = secrets.token_bytes(32)
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def keep(self, content: bytes) -> str:
        """Keep a copy of an image, a JPEG of at most 512×512; returns its name. Raises BadImage."""
        image = open_image(content, self._budget.max_pixels)
        with self._budget.reserve(image.width * image.height):
            copy = thumbnail(image, EDGE)
        # The same image has the same name; without the key, nobody can tell what that is.
        name = hashlib.blake2b(copy, key=self._key, digest_size=16).hexdigest()
        with self._lock:
            if name not in self._kept:
                self._kept[name] = copy
                self._bytes += len(copy)
            self._kept.move_to_end(name)
            while self._bytes > self._most_bytes and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= len(oldest)
        return name

    def find(self, name: str) -> bytes | None:
        """The copy of that name, None when it is gone."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)
