"""The stages of ingest, from a source's images to rows: `ingest.job.ingest_images` connects them."""

import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from lookalike.encode.engine import LazyEngine
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.stage_timer import NO_TIMER, StageTimer
from lookalike.ingest.pipeline.diff import Diff
from lookalike.ingest.pipeline.diff_source import diff_source, reject
from lookalike.ingest.pipeline.existing_rows import ExistingRows, RowScope, StoredVector
from lookalike.ingest.pipeline.limits import PipelineLimits
from lookalike.ingest.pipeline.load import Loaded, LoadedImage, Loader, ReadChanged, Unchanged
from lookalike.ingest.pipeline.new_collection import NewCollection
from lookalike.ingest.reports.report import ReadyRow, Rejection, Report
from lookalike.ingest.sources.files import image_reader
from lookalike.schema.cancellation import CancelToken
from lookalike.schema.errors import BadImage
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import ImageRow, ProductImage

_MAX_REUSED = 1_000
"""Rows in a batch whose vector is stored already."""


@dataclass(frozen=True, slots=True)
class PipelineContext:
    """What a run works with: the encoder, the reader of images, its limits, the token that stops it, and its timer."""

    engine: LazyEngine
    limits: PipelineLimits = field(default_factory=PipelineLimits)
    read: ReadChanged = field(default_factory=lambda: image_reader().read_changed)
    cancel: CancelToken = field(default_factory=CancelToken)
    timer: StageTimer = NO_TIMER


@dataclass(slots=True)
class Batch:
    """Images that are written together: those to encode, those whose vector is stored, and the rows of the first."""

    to_encode: list[LoadedImage] = field(default_factory=list)
    to_reuse: list[StoredVector] = field(default_factory=list)
    rows: list[ReadyRow] = field(default_factory=list)


class Stages:
    """The stages of one run, and what they share. Each may raise StoreUnavailable."""

    def __init__(self, store: Store | NewCollection, scope: RowScope, report: Report, context: PipelineContext) -> None:
        """Read the keys and hashes of the existing rows."""
        self._store = store
        self._report = report
        self._context = context
        self._existing = ExistingRows(store, scope)
        self.diff = Diff(self._existing.by_id)
        self._loader = Loader(
            self.diff,
            self._existing,
            context.engine,
            context.read,
            context.timer,
            PixelBudget(context.limits.max_pixels),
            threading.BoundedSemaphore(context.limits.workers),
        )

    def diff_source(
        self, images: Iterable[ProductImage | Rejection]
    ) -> Iterator[ProductImage | StoredVector | Rejection]:
        """Pass on the images whose file or metadata may have changed."""
        return diff_source(images, self.diff, self._report, self._context.cancel)

    def load_image(self, item: ProductImage | StoredVector | Rejection) -> Loaded:
        """Read and compare an image, and decode it if it has to be encoded."""
        return self._loader.load(item)

    def batch_images(self, loaded: Generator[Loaded]) -> Generator[Batch]:
        """Gather what has to be written into batches."""
        return batch_images(self._select_changes(loaded), self._context.engine)

    def encode_batch(self, batch: Batch) -> Batch:
        """Encode the images of a batch and make their rows.

        An image whose vector is not finite is rejected: half precision may overflow.
        """
        if not batch.to_encode:
            return batch
        vectors = self._context.engine.encode([item.pixels for item in batch.to_encode], self._context.cancel)
        self._report.count_embedded(len(vectors))
        rows = []
        for item, vector in zip(batch.to_encode, vectors, strict=True):
            if np.isfinite(vector).all():
                rows.append(ReadyRow(item.change, ImageRow.of(item.image, item.file, vector)))
            else:
                reason = "the encoder returned a vector that is not finite; in half precision, try --dtype float32"
                self._reject(Rejection(item.image.image, reason, item.image.image_id))
        return Batch(to_reuse=batch.to_reuse, rows=rows)

    def upsert_encoded(self, batch: Batch) -> Batch:
        """Write the rows of the images that were encoded."""
        self._upsert(batch.rows)
        return batch

    def upsert_reused(self, batch: Batch) -> None:
        """Write the images of a batch whose vector is stored, by this batch or before.

        When the row with the vector was changed or deleted meanwhile, the image is encoded here.
        """
        rows, gone = self._existing.build_rows(batch.to_reuse)
        self._upsert(rows)
        for late in batch_images(self._load_pixels(gone), self._context.engine):
            self._upsert(self.encode_batch(late).rows)

    def _select_changes(self, loaded: Generator[Loaded]) -> Generator[LoadedImage | StoredVector]:
        """Pass on what has to be written; of images with the same bytes only the first is encoded."""
        with closing(loaded):
            for item in loaded:
                if isinstance(item, Rejection):
                    self._reject(item)
                elif isinstance(item, Unchanged):
                    self._report.count_unchanged()
                elif isinstance(item, LoadedImage):
                    key = self._existing.claim(item.file.hash, item.image.image_id)
                    is_first = key == item.image.image_id
                    yield item if is_first else StoredVector(item.image, item.file, item.change, key)
                else:
                    yield item

    def _load_pixels(self, images: Iterable[StoredVector]) -> Generator[LoadedImage]:
        for item in images:
            try:
                yield self._loader.load_pixels(item.image, item.change)
            except BadImage as error:
                self._reject(Rejection.of(item.image, error))

    def _upsert(self, rows: Sequence[ReadyRow]) -> None:
        if rows:
            with self._context.timer.measure("upsert", len(rows)):
                self._store.upsert([item.row for item in rows])
            self._report.record_stored(rows)

    def _reject(self, rejection: Rejection) -> None:
        reject(rejection, self.diff, self._report)


def batch_images(
    items: Generator[LoadedImage | StoredVector] | Generator[LoadedImage], engine: LazyEngine
) -> Generator[Batch]:
    """Gather images into batches of the size that the engine encodes at once."""
    batch = Batch()
    with closing(items):
        for item in items:
            if isinstance(item, LoadedImage):
                batch.to_encode.append(item)
            else:
                batch.to_reuse.append(item)
            is_full = bool(batch.to_encode) and len(batch.to_encode) == engine.engine.batch_size
            if is_full or len(batch.to_reuse) == _MAX_REUSED:
                yield batch
                batch = Batch()
    if batch.to_encode or batch.to_reuse:
        yield batch
