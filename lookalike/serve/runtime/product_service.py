"""Products one at a time: read, put and removed over HTTP, written through the same path as ingest."""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog

from lookalike.encode.decode import load_rgb, open_image
from lookalike.encode.engine import Engine, LazyEngine
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.process_tuning import count_cores
from lookalike.ingest.pipeline.diff import Change
from lookalike.ingest.pipeline.existing_rows import ExistingRows, RowScope, StoredVector
from lookalike.ingest.pipeline.stages import PipelineLimits, WriteTarget, ingest
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
from lookalike.serve.runtime.deadline import current_deadline
from lookalike.serve.runtime.thumbnails import name_of

SOURCE = "api"
"""Whose rows those are that were put over HTTP."""

_MOST_IMAGES = 1_000
_NOT_AN_END = "/similar"
_FIELDS = ("product_id", "source", "image", "metadata")

_log = structlog.get_logger("lookalike")


class ProductService:
    """Writes products, one after the other; images that come with them are kept as files in `uploads`."""

    def __init__(self, uploads: Path, budget: PixelBudget) -> None:
        self._uploads = uploads.absolute()
        self._budget = budget
        self._writing = threading.Lock()

    def get(self, store: Store, product_id: str) -> ProductOut:
        """Tell a product's images and metadata. Raises UnknownProduct."""
        rows = _rows(store, product_id)
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
        """Make a product what is said: these images and no others, or those that it has, with this metadata.

        Raises BadImage and BadQuery, with nothing written; UnknownProduct when there are no images at all.
        """
        told = _checked(product_id, metadata)
        with self._turn():
            if images is None:
                written = self._tell(version.store, product_id, told)
            else:
                written = self._replace(version, product_id, images, told)
            version.finder.forget(product_id)
            version.store.require_live()
            return written

    def remove(self, version: OpenVersion, product_id: str) -> None:
        """Remove a product with its images. Raises UnknownProduct."""
        store = version.store
        with self._turn():
            rows = list(store.rows(where=column_in("product_id", [product_id]), fields=["image", "source"]))
            if not rows:
                raise _unknown(product_id)
            _delete(store, [row["image_id"] for row in rows])
            version.finder.forget(product_id)
            store.settle(len(rows))
            store.require_live()
            self._forget(rows)

    def _replace(
        self, version: OpenVersion, product_id: str, images: Sequence[bytes], metadata: dict[str, Any]
    ) -> WriteOut:
        store, report = version.store, Report()
        before = {row["image_id"]: row for row in _fetch(store, product_id)}
        files = [self._file(store.name, product_id, content, self._suffix(content)) for content in images]
        for file, content in zip(files, images, strict=True):
            _write(file, content)
        pictures = [ProductImage.named(SOURCE, product_id, file.name, str(file), metadata) for file in files]
        unique = {image.image_id: image for image in pictures}
        model = LazyEngine(lambda: Engine(version.encoder, version.engine.batch_size, version.engine.lanes))
        owned = RowScope(None, column_in("product_id", [product_id]))
        plan = ingest(
            unique.values(),
            owned,
            model,
            WriteTarget(store, report),
            PipelineLimits(count_cores(), self._budget.max_pixels),
        )
        if report.first_rejections:
            self._undo(store, [image for image_id, image in unique.items() if image_id not in before])
            _log.error("an image was rejected", reason=report.first_rejections[0].reason)
            raise BadImage("an image could not be taken in, and none of them was; the service's log says why")
        gone = plan.removed()
        _delete(store, gone)
        self._forget([before[image_id] for image_id in gone if image_id in before])
        done = report.summary()
        return WriteOut(
            product_id=product_id,
            new=done.new,
            changed=done.changed,
            metadata=done.metadata,
            unchanged=done.unchanged,
            removed=len(gone),
        )

    def _tell(self, store: Store, product_id: str, metadata: dict[str, Any]) -> WriteOut:
        """Give the images that are there other metadata, without a look at their files."""
        inventory = ExistingRows(store, RowScope(None, column_in("product_id", [product_id])))
        wanted = [
            StoredVector(
                ProductImage(row["image_id"], row["source"], product_id, row["image"], metadata),
                known.file,
                Change.METADATA,
                row["image_id"],
            )
            for row in _rows(store, product_id)
            if (known := inventory.known.get(row["image_id"])) is not None
        ]
        ready, _ = inventory.ready(wanted)
        store.upsert([item.row for item in ready])
        store.settle(len(ready))
        return WriteOut(product_id=product_id, new=0, changed=0, metadata=len(ready), unchanged=0, removed=0)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for other writes; a write that nobody waits for any more is not begun."""
        with self._writing:
            deadline = current_deadline()
            if deadline is not None:
                deadline.check()
            yield

    def _undo(self, store: Store, images: Sequence[ProductImage]) -> None:
        """Take back what is new."""
        _delete(store, [image.image_id for image in images])
        self._forget([{"source": image.source, "image": image.image} for image in images])

    def _suffix(self, content: bytes) -> str:
        """The suffix of an image that can be decoded. Raises BadImage."""
        image = open_image(content, self._budget.max_pixels)
        with self._budget.reserve(image.width * image.height):
            load_rgb(image)
        return f".{(image.format or 'image').lower()}"

    def _file(self, collection: str, product_id: str, content: bytes, suffix: str) -> Path:
        # Folders and files are named by us: nothing of a request becomes part of a path.
        return self._uploads / collection / name_of(product_id.encode())[:16] / (name_of(content) + suffix)

    def _forget(self, rows: Sequence[Row]) -> None:
        """Remove the files of rows that are gone, of those that were uploaded."""
        for row in rows:
            file = Path(row["image"])
            if row["source"] == SOURCE and file.is_relative_to(self._uploads):
                file.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    file.parent.rmdir()


def _fetch(store: Store, product_id: str) -> list[Row]:
    rows = store.fetch(where=column_in("product_id", [product_id]), fields=_FIELDS, limit=_MOST_IMAGES)
    return sorted(rows, key=lambda row: str(row["image_id"]))


def _rows(store: Store, product_id: str) -> list[Row]:
    rows = _fetch(store, product_id)
    if not rows:
        raise _unknown(product_id)
    return rows


def _unknown(product_id: str) -> UnknownProduct:
    return UnknownProduct(f"no product {product_id!r}; put it with its images first")


def _delete(store: Store, image_ids: Sequence[str]) -> None:
    """Remove rows, and see them gone: a server acknowledges a delete before its searches know of it."""
    if image_ids:
        store.delete(image_ids)
        store.count(column_in("image_id", image_ids), consistency="Strong")


def _checked(product_id: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of metadata. Raises BadQuery for a product that could not be kept."""
    if product_id.endswith(_NOT_AN_END):
        raise BadQuery(f"a product id that ends in {_NOT_AN_END} could not be asked for; take another one")
    try:
        told = read_metadata(metadata, {})
    except ValueError as error:
        raise BadQuery(f"metadata: {error}") from None
    problem = describe_misfit({"product_id": product_id}, told)
    if problem:
        raise BadQuery(problem)
    return told


def _write(file: Path, content: bytes) -> None:
    """Write a file as a whole or not at all; the same bytes are there already under that name."""
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
        raise BadSettings(f"--uploads {str(file.parents[2])!r} cannot be written: {error.strerror}") from error
