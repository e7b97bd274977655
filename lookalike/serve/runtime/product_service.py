"""Reads, puts and removes one product at a time over HTTP. Writes go through the same pipeline as ingest."""

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import structlog

from lookalike.encode.decode import open_image
from lookalike.encode.engine import Content, Engine, LazyEngine
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.preprocess import Pixels
from lookalike.encode.process_tuning import count_cores
from lookalike.encode.stage_timer import NO_TIMER, StageTimer
from lookalike.ingest.job import ingest_images
from lookalike.ingest.pipeline.diff import Change
from lookalike.ingest.pipeline.existing_rows import ExistingRows, RowScope, StoredVector
from lookalike.ingest.pipeline.limits import PipelineLimits
from lookalike.ingest.pipeline.stages import PipelineContext
from lookalike.ingest.reports.report import Report
from lookalike.ingest.sources.metadata import read_metadata
from lookalike.schema.collection import describe_misfit
from lookalike.schema.errors import BadImage, BadQuery, BadSettings, UnknownProduct
from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import ProductImage
from lookalike.serve.api.redaction import redact_source
from lookalike.serve.api.schemas import ProductOut, StoredImage, WriteOut, image_path
from lookalike.serve.runtime.active_version import OpenVersion
from lookalike.serve.runtime.deadline import check_deadline
from lookalike.serve.runtime.thumbnails import hash_bytes

SOURCE = "api"
"""The source of rows that are put over HTTP."""

_MAX_IMAGES = 1_000
_RESERVED_SUFFIX = "/similar"
"""/products/ID/similar is a route of its own."""

_FIELDS = ("product_id", "source", "image", "metadata")

_log = structlog.get_logger("lookalike")


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


class ProductService:
    """Reads and writes products, one write at a time. Uploaded images are stored as files in `uploads`."""

    def __init__(self, uploads: Path, budget: PixelBudget) -> None:
        self._uploads = uploads.absolute()
        self._budget = budget
        self._write_lock = threading.Lock()

    def get(self, store: Store, product_id: str) -> ProductOut:
        """Read a product's images and metadata. Raises UnknownProduct."""
        rows = _fetch_existing(store, product_id)
        images = [
            StoredImage(
                image_id=row["image_id"],
                url=image_path(row["image_id"]),
                source=redact_source(row["source"]),
                metadata=row["metadata"],
            )
            for row in rows
        ]
        return ProductOut(product_id=product_id, metadata=rows[0]["metadata"], images=images)

    def put(
        self, version: OpenVersion, product_id: str, images: Sequence[bytes] | None, metadata: dict[str, Any]
    ) -> WriteOut:
        """Replace a product: its images by these (it keeps its own if `images` is None), its metadata by this.

        Raises BadImage and BadQuery, with nothing written; UnknownProduct if it has no images and none are given.
        """
        metadata = _validate(product_id, metadata)
        with self._exclusive_write():
            # Before the write: the first product of a column decides its type.
            warnings = list(version.columns.describe_product(metadata))
            if images is None:
                written = self._update_metadata(version.store, product_id, metadata)
            else:
                written = self._replace(version, product_id, images, metadata)
            version.finder.invalidate_product(product_id)
            version.store.require_live()
            return written.model_copy(update={"warnings": warnings})

    def remove(self, version: OpenVersion, product_id: str) -> None:
        """Remove a product with its images and their uploaded files. Raises UnknownProduct."""
        store = version.store
        with self._exclusive_write():
            rows = list(store.rows(where=column_in("product_id", [product_id]), fields=["image", "source"]))
            if not rows:
                raise _unknown(product_id)
            _delete(store, [row["image_id"] for row in rows])
            version.finder.invalidate_product(product_id)
            store.flush_after(len(rows))
            store.require_live()
            self._delete_uploads(rows)

    def _replace(
        self, version: OpenVersion, product_id: str, images: Sequence[bytes], metadata: dict[str, Any]
    ) -> WriteOut:
        store, report = version.store, Report()
        before = {row["image_id"]: row for row in _fetch(store, product_id)}
        unique: dict[str, ProductImage] = {}
        contents: dict[str, bytes] = {}
        for content in images:
            file = self._file(store.name, product_id, content, self._suffix(content))
            image = ProductImage.named(SOURCE, product_id, file.name, str(file), metadata)
            unique[image.image_id], contents[image.image_id] = image, content
        upload_engine = UploadEngine(version.encoder, version.engine.batch_size, version.engine.parallel_batches)
        # A stored image was decoded when it was first uploaded.
        upload_engine.prepare_uploads(
            [content for image_id, content in contents.items() if image_id not in before], self._budget
        )
        for image_id, content in contents.items():
            _write(Path(unique[image_id].image), content)
        engine = LazyEngine(lambda: upload_engine)
        scope = RowScope(None, column_in("product_id", [product_id]))
        context = PipelineContext(engine, PipelineLimits(count_cores(), self._budget.max_pixels))
        diff = ingest_images(unique.values(), scope, store, report, context)
        if report.first_rejections:
            self._discard(store, [image for image_id, image in unique.items() if image_id not in before])
            _log.error("an image was rejected", reason=report.first_rejections[0].reason)
            raise BadImage("an image could not be stored, so none of them was; see the service's log for the reason")
        removed_ids = diff.removed()
        _delete(store, removed_ids)
        self._delete_uploads([before[image_id] for image_id in removed_ids if image_id in before])
        done = report.summary()
        return WriteOut(
            product_id=product_id,
            new=done.new,
            changed=done.changed,
            metadata=done.metadata,
            unchanged=done.unchanged,
            removed=len(removed_ids),
        )

    def _update_metadata(self, store: Store, product_id: str, metadata: dict[str, Any]) -> WriteOut:
        """Replace the metadata of the product's rows. Their image files are not read."""
        existing = ExistingRows(store, RowScope(None, column_in("product_id", [product_id])))
        changed = [
            StoredVector(
                ProductImage(row["image_id"], row["source"], product_id, row["image"], metadata),
                known.file,
                Change.METADATA,
                row["image_id"],
            )
            for row in _fetch_existing(store, product_id)
            if (known := existing.by_id.get(row["image_id"])) is not None
        ]
        ready, _ = existing.build_rows(changed)
        store.upsert([item.row for item in ready])
        store.flush_after(len(ready))
        return WriteOut(product_id=product_id, new=0, changed=0, metadata=len(ready), unchanged=0, removed=0)

    @contextlib.contextmanager
    def _exclusive_write(self) -> Iterator[None]:
        """Wait for other writes to end. Raises DeadlineExceeded if the wait took too long."""
        with self._write_lock:
            check_deadline()
            yield

    def _discard(self, store: Store, images: Sequence[ProductImage]) -> None:
        """Delete images that were just stored: their rows and their files."""
        _delete(store, [image.image_id for image in images])
        self._delete_uploads([{"source": image.source, "image": image.image} for image in images])

    def _suffix(self, content: bytes) -> str:
        """Return the file suffix for an image's format, which its header names. Raises BadImage."""
        return f".{(open_image(content, self._budget.max_pixels).format or 'image').lower()}"

    def _file(self, collection: str, product_id: str, content: bytes, suffix: str) -> Path:
        # Names are hashes: no text of a request becomes part of a path.
        return self._uploads / collection / hash_bytes(product_id.encode())[:16] / (hash_bytes(content) + suffix)

    def _delete_uploads(self, rows: Sequence[Row]) -> None:
        """Delete the image files of deleted rows, if the files are uploads; files of other sources stay."""
        for row in rows:
            file = Path(row["image"])
            if row["source"] == SOURCE and file.is_relative_to(self._uploads):
                file.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    file.parent.rmdir()


def _fetch(store: Store, product_id: str) -> list[Row]:
    rows = store.fetch(where=column_in("product_id", [product_id]), fields=_FIELDS, limit=_MAX_IMAGES)
    return sorted(rows, key=lambda row: str(row["image_id"]))


def _fetch_existing(store: Store, product_id: str) -> list[Row]:
    """Fetch a product's rows. Raises UnknownProduct if there are none."""
    rows = _fetch(store, product_id)
    if not rows:
        raise _unknown(product_id)
    return rows


def _unknown(product_id: str) -> UnknownProduct:
    return UnknownProduct(f"no product {product_id!r}; put it with its images first")


def _delete(store: Store, image_ids: Sequence[str]) -> None:
    """Delete rows and wait until searches no longer find them: a server acknowledges a delete before that."""
    if image_ids:
        store.delete(image_ids)
        store.count(column_in("image_id", image_ids), consistency="Strong")


def _validate(product_id: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata as it will be stored. Raises BadQuery if the product cannot be stored."""
    if product_id.endswith(_RESERVED_SUFFIX):
        raise BadQuery(f"a product id that ends in {_RESERVED_SUFFIX} clashes with a route; choose another id")
    try:
        stored = read_metadata(metadata, {})
    except ValueError as error:
        raise BadQuery(f"metadata: {error}") from None
    problem = describe_misfit({"product_id": product_id}, stored)
    if problem:
        raise BadQuery(problem)
    return stored


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
