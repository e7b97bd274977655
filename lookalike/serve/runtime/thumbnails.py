"""Images of the collection: the original file, or a thumbnail of it."""

import hashlib
import io
import threading
from collections.abc import MutableMapping
from dataclasses import dataclass

from cachetools import LRUCache
from PIL import Image

from lookalike.encode.decode import load_rgb, open_image
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.ingest.sources.files import ImageReader, image_reader
from lookalike.schema.errors import BadImage, UnknownProduct
from lookalike.schema.milvus.store import Store

SIZES = (64, 128, 256, 512, 1_024)
"""The longer edges of thumbnails in pixels. There are few, so that the cache is hit often."""

_MAX_BYTES = 64 * 2**20
_MAX_FILE_BYTES = _MAX_BYTES // 16
"""Larger files, which are originals, are not cached."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file with its media type, and an ETag that changes with its bytes."""

    content: bytes
    media_type: str
    etag: str


class ThumbnailCache:
    """Reads images and makes thumbnails; caches 64 MB of the latest used. Safe to use from several threads."""

    def __init__(self, budget: PixelBudget, reader: ImageReader | None = None) -> None:
        self._budget = budget
        self._reader = reader or image_reader()
        self._cache: MutableMapping[str, ImageFile] = LRUCache(_MAX_BYTES, getsizeof=lambda file: len(file.content))
        self._lock = threading.Lock()

    def get_image(self, store: Store, image_id: str, size: int | None) -> ImageFile:
        """Get an image by its key, as it is or with no edge longer than `size`.

        Raises UnknownProduct if the collection has no such key, or the image's file cannot be read any more.
        """
        row = next(store.get([image_id], ["image", "image_hash"]), None)
        if row is None:
            raise UnknownProduct(f"no image {image_id!r}")
        etag = f"{row['image_hash']}-{size or 'original'}"
        with self._lock:
            cached = self._cache.get(etag)
        if cached is not None:
            return cached
        try:
            file = self._read_file(row["image"], size, etag)
        except BadImage as error:
            # Clients do not see the path of the file, nor what is wrong with it.
            public = f"the file of image {image_id!r} is missing or is no longer an image"
            raise UnknownProduct(
                f"{public}: {row['image']!r}: {error}",
                public=public,
            ) from error
        if len(file.content) <= _MAX_FILE_BYTES:
            with self._lock:
                self._cache[etag] = file
        return file

    def _read_file(self, location: str, size: int | None, etag: str) -> ImageFile:
        content, _ = self._reader.read(location)
        image = open_image(content, self._budget.max_pixels)
        if size is None:
            media_type = Image.MIME.get(image.format or "", "application/octet-stream")
            return ImageFile(content, media_type, etag)
        with self._budget.reserve(image.width * image.height):
            return ImageFile(make_thumbnail(image, size), "image/jpeg", etag)


def make_thumbnail(image: Image.Image, size: int) -> bytes:
    """Make a JPEG, no edge longer than `size`. Raises BadImage."""
    # `draft` makes the JPEG decoder downscale while it decodes.
    image.draft("RGB", (size, size))
    small = load_rgb(image)
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return file.getvalue()


def hash_bytes(content: bytes) -> str:
    """Hash bytes to 32 hex digits, for names of files."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
