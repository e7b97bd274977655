"""Images that the collection knows, as they are or small."""

import hashlib
import io
import threading
from collections import OrderedDict
from dataclasses import dataclass

from PIL import Image

from lookalike.encode.decode import load_rgb, open_image
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.ingest.sources.files import ImageReader, image_reader
from lookalike.schema.errors import BadImage, UnknownProduct
from lookalike.schema.milvus.store import Store

SIZES = (64, 128, 256, 512, 1_024)
"""Edges of thumbnails: a few, so that they can be kept."""

_KEPT_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The bytes of an image, what they are, and a name for them that changes when they do."""

    content: bytes
    media_type: str
    etag: str


class ThumbnailCache:
    """Reads images and keeps small ones in memory, up to 64 MB; safe to use from several threads."""

    def __init__(self, budget: PixelBudget, reader: ImageReader | None = None) -> None:
        self._budget = budget
        self._reader = reader or image_reader()
        self._kept: OrderedDict[str, ImageFile] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def show(self, store: Store, image_id: str, size: int | None) -> ImageFile:
        """Get an image by its key, no edge longer than `size`.

        Raises UnknownProduct for a key that the collection does not know, or whose file is not there any more.
        """
        row = next(store.get([image_id], ["image", "image_hash"]), None)
        if row is None:
            raise UnknownProduct(f"no image {image_id!r}")
        etag = f"{row['image_hash']}-{size or 'original'}"
        kept = self._recall(etag)
        if kept is not None:
            return kept
        try:
            shown = self._read(row["image"], size, etag)
        except BadImage as error:
            # Where it was, and why it cannot be read, is for whoever runs the service.
            raise UnknownProduct(f"the file of image {image_id!r} is gone, or no image any more") from error
        self._keep(shown)
        return shown

    def _read(self, where: str, size: int | None, etag: str) -> ImageFile:
        content, _ = self._reader.read(where)
        image = open_image(content, self._budget.max_pixels)
        if size is None:
            media_type = Image.MIME.get(image.format or "", "application/octet-stream")
            return ImageFile(content, media_type, etag)
        with self._budget.reserve(image.width * image.height):
            return ImageFile(thumbnail(image, size), "image/jpeg", etag)

    def _recall(self, etag: str) -> ImageFile | None:
        with self._lock:
            if etag in self._kept:
                self._kept.move_to_end(etag)
            return self._kept.get(etag)

    def _keep(self, shown: ImageFile) -> None:
        if len(shown.content) > _KEPT_BYTES // 16:
            return
        with self._lock:
            if shown.etag not in self._kept:
                self._kept[shown.etag] = shown
                self._bytes += len(shown.content)
            while self._bytes > _KEPT_BYTES:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= len(oldest.content)


def thumbnail(image: Image.Image, size: int) -> bytes:
    """Make a JPEG, no edge longer than `size`. Raises BadImage."""
    # A JPEG is decoded at a fraction of its size already.
    image.draft("RGB", (size, size))
    small = load_rgb(image)
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return file.getvalue()


def name_of(content: bytes) -> str:
    """A name for bytes, the same for the same ones."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
