"""Reads, puts and removes one product at a time over HTTP. Writes go through the same pipeline as ingest."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog

from lookalike.encode.engine import LazyEngine
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.process_tuning import count_cores
from lookalike.ingest.job import ingest_images
from lookalike.ingest.pipeline.diff import Change, Diff
from lookalike.ingest.pipeline.existing_rows import ExistingRows, RowScope, StoredVector
from lookalike.ingest.pipeline.limits import PipelineLimits
from lookalike.ingest.pipeline.stages import PipelineContext
from lookalike.ingest.reports.report import Report
from lookalike.ingest.sources.metadata import read_metadata
from lookalike.schema.collection import describe_misfit
from lookalike.schema.errors import BadImage, BadQuery, UnknownProduct
from lookalike.schema.filters.expression import column_in
from lookalike.schema.metadata import RESERVED_NAMES
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import ProductImage
from lookalike.serve.api.redaction import redact_source
from lookalike.serve.api.schemas import ProductOut, StoredImage, WriteOut, image_path
from lookalike.serve.runtime.active_version import OpenVersion
from lookalike.serve.runtime.deadline import check_deadline
from lookalike.serve.runtime.uploads import UploadFolder

_MAX_IMAGES = 1_000
_RESERVED_SUFFIX = "/similar"
"""/products/ID/similar is a route of its own."""

_PUT_IMAGES = "; put it with its images first"
_FIELDS = ("product_id", "source", "image", "metadata")

_log = structlog.get_logger("lookalike")


class ProductService:
    """Reads and writes products, one write at a time. Uploaded images are stored as files in `uploads`."""

    def __init__(self, uploads: Path, budget: PixelBudget) -> None:
        self._uploads = UploadFolder(uploads, budget)
        self._max_pixels = budget.max_pixels
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

    def plan_put(
        self, version: OpenVersion, product_id: str, images: Sequence[bytes] | None, metadata: dict[str, Any]
    ) -> WriteOut:
        """Return what `put` would, and raise what it would; change nothing."""
        metadata = _validate(product_id, metadata)
        store = version.store
        existing = ExistingRows(store, RowScope(None, column_in("product_id", [product_id]))).by_id
        if images is None and not existing:
            raise _unknown(product_id, _PUT_IMAGES)
        changes, diff = Counter[Change](), Diff(existing)
        uploads = None if images is None else self._uploads.name_images(store.name, product_id, images, metadata)
        if uploads is not None:
            self._uploads.decode_new(version, uploads, existing)
            for image in uploads.images.values():
                diff.mark_seen(image.image_id)
                changes[diff.compare_metadata(image) if image.image_id in existing else Change.NEW] += 1
        store.require_live()
        return WriteOut(
            product_id=product_id,
            new=changes[Change.NEW],
            changed=0,
            metadata=changes[Change.METADATA] if uploads is not None else len(existing),
            unchanged=changes[Change.UNCHANGED],
            removed=len(diff.removed()) if uploads is not None else 0,
            warnings=list(version.columns.describe_product(metadata)),
        )

    def plan_removal(self, version: OpenVersion, product_id: str) -> WriteOut:
        """Return how many images `remove` would remove, and raise what it would; change nothing."""
        removed = version.store.count(column_in("product_id", [product_id]), consistency="Strong")
        if not removed:
            raise _unknown(product_id)
        version.store.require_live()
        return WriteOut(product_id=product_id, new=0, changed=0, metadata=0, unchanged=0, removed=removed)

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
            self._uploads.delete(rows)

    def _replace(
        self, version: OpenVersion, product_id: str, images: Sequence[bytes], metadata: dict[str, Any]
    ) -> WriteOut:
        store, report = version.store, Report()
        before = {row["image_id"]: row for row in _fetch(store, product_id)}
        uploads = self._uploads.name_images(store.name, product_id, images, metadata)
        upload_engine = self._uploads.decode_new(version, uploads, before)
        self._uploads.write(uploads)
        engine = LazyEngine(lambda: upload_engine)
        scope = RowScope(None, column_in("product_id", [product_id]))
        context = PipelineContext(engine, PipelineLimits(count_cores(), self._max_pixels))
        diff = ingest_images(uploads.images.values(), scope, store, report, context)
        if report.first_rejections:
            self._discard(store, [image for image_id, image in uploads.images.items() if image_id not in before])
            _log.error("an image was rejected", reason=report.first_rejections[0].reason)
            raise BadImage("an image could not be stored, so none of them was; send another one")
        removed_ids = diff.removed()
        _delete(store, removed_ids)
        self._uploads.delete([before[image_id] for image_id in removed_ids if image_id in before])
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
            for row in _fetch_existing(store, product_id, _PUT_IMAGES)
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
        self._uploads.delete([{"source": image.source, "image": image.image} for image in images])


def _fetch(store: Store, product_id: str) -> list[Row]:
    rows = store.fetch(where=column_in("product_id", [product_id]), fields=_FIELDS, limit=_MAX_IMAGES)
    return sorted(rows, key=lambda row: str(row["image_id"]))


def _fetch_existing(store: Store, product_id: str, advice: str = "") -> list[Row]:
    """Fetch a product's rows. Raises UnknownProduct, with advice, if there are none."""
    rows = _fetch(store, product_id)
    if not rows:
        raise _unknown(product_id, advice)
    return rows


def _unknown(product_id: str, advice: str = "") -> UnknownProduct:
    return UnknownProduct(f"no product {product_id!r}{advice}")


def _delete(store: Store, image_ids: Sequence[str]) -> None:
    """Delete rows and wait until searches no longer find them: a server acknowledges a delete before that."""
    if image_ids:
        store.delete(image_ids)
        store.count(column_in("image_id", image_ids), consistency="Strong")


def _require_column_names(metadata: dict[str, Any]) -> None:
    """Raise BadQuery for names that no column can have; a manifest may have them, as its own id and image."""
    taken = sorted(RESERVED_NAMES.intersection(metadata))
    if taken:
        raise BadQuery(f"metadata: {', '.join(taken)} cannot be the name of a column; rename it")
    if not all(name.strip() for name in metadata):
        raise BadQuery("metadata: a column has no name; name it, or leave it out")


def _validate(product_id: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata as it will be stored. Raises BadQuery if the product cannot be stored."""
    if product_id.removesuffix("\n").endswith(_RESERVED_SUFFIX):
        raise BadQuery(f"a product id that ends in {_RESERVED_SUFFIX} clashes with a route; choose another id")
    _require_column_names(metadata)
    try:
        stored = read_metadata(metadata, {})
    except ValueError as error:
        raise BadQuery(f"metadata: {error}") from None
    problem = describe_misfit({"product_id": product_id}, stored)
    if problem:
        raise BadQuery(problem)
    return stored
