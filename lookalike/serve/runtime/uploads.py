"""The image files of products that are put over HTTP: named by their bytes, decoded before anything is written."""

import contextlib
import os
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from lookalike.encode.decode import open_image
from lookalike.encode.engine import Content, Engine
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.preprocess import Pixels
from lookalike.encode.stage_timer import NO_TIMER, StageTimer
from lookalike.schema.errors import BadSettings
from lookalike.schema.milvus.reader import Row
from lookalike.schema.product import ProductImage
from lookalike.serve.runtime.active_version import OpenVersion
from lookalike.serve.runtime.thumbnails import hash_bytes

SOURCE = "api"
"""The source of rows that are put over HTTP."""


@dataclass(frozen=True)
class UploadEngine(Engine):
    """Prepares uploads before anything is written, and hands them to the ingest pipeline: each is decoded once."""

    uploads: dict[bytes, Pixels] = field(default_factory=dict)

    def prepare_uploads(self, contents: Iterable[bytes], budget: PixelBudget) -> None:
        """Decode images. Raises BadImage for the first that is broken."""
        for content in contents:
            self.uploads[content] = super().prepare(content, budget)

    def prepare(self, content: Content, budget: PixelBudget, timer: StageTimer = NO_TIMER) -> Pixels:
        """Return the pixels of an upload; decode it if it is not an upload."""
        pixels = self.uploads.get(cast("bytes", content))
        return super().prepare(content, budget, timer) if pixels is None else pixels


class Uploads(NamedTuple):
    """The images of a request, and the bytes of their files, by image_id."""

    images: dict[str, ProductImage]
    contents: dict[str, bytes]


class UploadFolder:
    """The folder of uploaded images. Its files are named by hashes: no text of a request becomes part of a path."""

    def __init__(self, folder: Path, budget: PixelBudget) -> None:
        self._folder = folder.absolute()
        self._budget = budget

    def name_images(
        self, collection: str, product_id: str, images: Sequence[bytes], metadata: dict[str, Any]
    ) -> Uploads:
        """Name images by the hash of their bytes, so that equal ones are one. Raises BadImage."""
        uploads = Uploads({}, {})
        folder = self._folder / collection / hash_bytes(product_id.encode())[:16]
        for content in images:
            file = folder / (hash_bytes(content) + self._suffix(content))
            image = ProductImage.named(SOURCE, product_id, file.name, str(file), metadata)
            uploads.images[image.image_id], uploads.contents[image.image_id] = image, content
        return uploads

    def decode_new(self, version: OpenVersion, uploads: Uploads, existing: Container[str]) -> UploadEngine:
        """Decode the images that are not stored yet: a stored one was decoded when it was uploaded. Raises BadImage."""
        engine = UploadEngine(version.encoder, version.engine.batch_size, version.engine.parallel_batches)
        engine.prepare_uploads(
            [content for image_id, content in uploads.contents.items() if image_id not in existing], self._budget
        )
        return engine

    def write(self, uploads: Uploads) -> None:
        """Write the files. Raises BadSettings if the folder cannot be written to."""
        for image_id, content in uploads.contents.items():
            _write(Path(uploads.images[image_id].image), content)

    def delete(self, rows: Iterable[Row]) -> None:
        """Delete the image files of deleted rows, if the files are uploads; files of other sources stay."""
        for row in rows:
            file = Path(row["image"])
            if row["source"] == SOURCE and file.is_relative_to(self._folder):
                file.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    file.parent.rmdir()

    def _suffix(self, content: bytes) -> str:
        """Return the file suffix for an image's format, which its header names. Raises BadImage."""
        return f".{(open_image(content, self._budget.max_pixels).format or 'image').lower()}"


def _write(file: Path, content: bytes) -> None:
    """Write a file atomically. An existing file has the same bytes, because its name is their hash."""
    if file.exists():
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        with part.open("wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(file)
    except OSError as error:
        raise BadSettings(f"cannot write to --uploads {str(file.parents[2])!r}: {error.strerror}") from error
