"""The whole way of a catalogue into a collection: source → plan → load → encode → upsert → report."""

import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from lookalike.encode.decode import MAX_PIXELS
from lookalike.encode.engine import LazyEngine, ReadChanged
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.profile import Profile, timed
from lookalike.ingest.pipeline.concurrency import in_background, in_parallel
from lookalike.ingest.pipeline.diff import Change, Diff
from lookalike.ingest.pipeline.existing_rows import ExistingRows, RowScope, StoredVector
from lookalike.ingest.pipeline.load import Loaded, LoadedImage, Loader, Unchanged, compare
from lookalike.ingest.reports.report import ReadyRow, Rejection, Report
from lookalike.ingest.sources.files import image_reader, is_remote
from lookalike.schema.collection import describe_misfit
from lookalike.schema.errors import BadImage
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import ImageRow, ProductImage

MOST_ROWS = 1_000
"""How many rows whose vectors are stored already wait to be written together."""

_BATCHES = 16
"""Two for each of eight GPUs."""

_FETCHES = 16
"""Images on their way from other machines at once."""


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """How much is under way at once: threads that read and decode, pixels that they decode at the same time, batches.

    `fetches` are threads that may wait for images from other machines besides.
    """

    workers: int = 2
    max_pixels: int = MAX_PIXELS
    batches: int = _BATCHES
    fetches: int = _FETCHES

    @property
    def threads(self) -> int:
        """How many threads load images: more than read and decode, for those that wait."""
        return max(self.workers, self.fetches)


class WriteTarget(NamedTuple):
    """Where rows go, and where it is told what became of them, and how long that took."""

    store: Store
    report: Report
    profile: Profile | None = None


@dataclass(slots=True)
class Batch:
    """Images on their way into the collection together: those to be encoded, and those whose vector is stored."""

    fresh: list[LoadedImage] = field(default_factory=list)
    stored: list[StoredVector] = field(default_factory=list)
    ready: list[ReadyRow] = field(default_factory=list)


def ingest(
    images: Iterable[ProductImage | Rejection],
    owned: RowScope,
    model: LazyEngine,
    target: WriteTarget,
    pace: PipelineLimits,
) -> Diff:
    """Make a collection equal to a source, except for what the source has no more: that is in the plan it returns.

    Only what is new or has changed is read, and only other bytes than those of any row are encoded. Reading and
    decoding (on `pace.workers` threads), the network and Milvus work at the same time; what waits between them is
    bounded. All that the report counts is acknowledged: a run that was killed is continued by running it again.
    `owned` are the rows that the images are compared with; those without an image are what the source has no more.
    """
    store, report, profile = target
    report.start()
    inventory = ExistingRows(store, owned)
    plan = Diff(inventory.known)
    loader = Loader(plan, inventory, model, PixelBudget(pace.max_pixels), threading.BoundedSemaphore(pace.workers))
    steps = _steps(images, plan, report)
    loaded = in_parallel(loader, steps, workers=pace.threads, ahead=max(8 * pace.workers, pace.threads))
    batches = in_background(_batches(_work(loaded, inventory, plan, report), model), ahead=2)
    encoded = in_parallel(partial(_encode, model, plan, report), batches, workers=pace.batches, ahead=pace.batches)
    writers = store.parallel_writes
    written = in_parallel(partial(_write_fresh, target), encoded, workers=writers, ahead=writers)
    with closing(batches), closing(encoded), closing(written):
        for batch in written:
            # After that: an image's twin may be in the same batch, or in one before.
            found, gone = inventory.ready(batch.stored)
            _write(found, target)
            for late in _batches(_pixels(gone, loader, plan, report), model):
                _write(_encode(model, plan, report, late).ready, target)
    with timed(profile, "flush", report.stored):
        store.flush_after(report.stored)
    return plan


def count_changes(
    images: Iterable[ProductImage | Rejection],
    source: str,
    store: Store | None,
    report: Report,
    read: "ReadChanged | None" = None,
) -> Diff:
    """Compare a source with a collection, or with none, and count what `ingest` would do; nothing is written.

    Of the images, those are read whose size or time has changed; new ones are not opened.
    """
    report.start()
    plan = Diff({} if store is None else ExistingRows(store, RowScope(source)).known)
    read = read or image_reader().read_changed
    for step in _steps(images, plan, report):
        if isinstance(step, StoredVector):
            report.count(step.change, step.image)
        elif isinstance(step, ProductImage) and step.image_id in plan.known:
            _survey_changed(step, plan, report, read)
        elif isinstance(step, ProductImage):
            report.count(Change.NEW, step)
        else:
            _reject(step, plan, report)
    return plan


def _survey_changed(image: ProductImage, plan: Diff, report: Report, read: ReadChanged) -> None:
    try:
        changed = read(image.image, plan.known_file(image))
        report.count(plan.unread(image) if changed is None else plan.after_reading(image, changed[1]), image)
    except BadImage as error:
        _reject(Rejection.of(image, error), plan, report)


def _steps(
    images: Iterable[ProductImage | Rejection], plan: Diff, report: Report
) -> Iterator[ProductImage | StoredVector | Rejection]:
    """Pass on what has to be done: an image whose file is as it was, and says the same, ends here."""
    for item in images:
        step = _step(item, plan)
        if isinstance(step, Unchanged):
            report.count_unchanged()
        else:
            yield step


def _step(item: ProductImage | Rejection, plan: Diff) -> ProductImage | StoredVector | Unchanged | Rejection:
    if isinstance(item, Rejection):
        return item
    if not plan.meet(item.image_id):
        return Rejection(item.image, f"product {item.product_id!r} has this image already; the first one counts")
    try:
        step = None if is_remote(item.image) else compare(item, plan)
    except BadImage as error:
        return Rejection.of(item, error)
    if isinstance(step, Unchanged):
        return step
    texts = {"product_id": item.product_id, "image": item.image, "source": item.source}
    problem = describe_misfit(texts, item.metadata)
    return Rejection(item.image, problem, item.image_id) if problem else step or item


def _work(
    loaded: Generator[Loaded], inventory: ExistingRows, plan: Diff, report: Report
) -> Generator[LoadedImage | StoredVector]:
    """Pass on what has to be written; of images with the same bytes only the first is to be encoded."""
    with closing(loaded):
        for item in loaded:
            if isinstance(item, Rejection):
                _reject(item, plan, report)
            elif isinstance(item, Unchanged):
                report.count_unchanged()
            elif isinstance(item, LoadedImage):
                key = inventory.claim(item.file.hash, item.image.image_id)
                first = key == item.image.image_id
                yield item if first else StoredVector(item.image, item.file, item.change, key)
            else:
                yield item


def _batches(
    items: Generator[LoadedImage | StoredVector] | Generator[LoadedImage], model: LazyEngine
) -> Generator[Batch]:
    batch = Batch()
    with closing(items):
        for item in items:
            if isinstance(item, LoadedImage):
                batch.fresh.append(item)
            else:
                batch.stored.append(item)
            if len(batch.stored) == MOST_ROWS or (batch.fresh and len(batch.fresh) == model.engine.batch_size):
                yield batch
                batch = Batch()
    if batch.fresh or batch.stored:
        yield batch


def _encode(model: LazyEngine, plan: Diff, report: Report, batch: Batch) -> Batch:
    """Run the network over a batch; an image whose vector is not finite (half precision overflows) is rejected."""
    if not batch.fresh:
        return batch
    vectors = model.encode([item.pixels for item in batch.fresh])
    report.count_embedded(len(vectors))
    encoded = Batch(stored=batch.stored)
    for item, vector in zip(batch.fresh, vectors, strict=True):
        if np.isfinite(vector).all():
            encoded.ready.append(ReadyRow(item.change, ImageRow.of(item.image, item.file, vector)))
        else:
            reason = "the encoder gave no finite vector; where it ran in half precision, try --dtype float32"
            _reject(Rejection(item.image.image, reason, item.image.image_id), plan, report)
    return encoded


def _pixels(items: Iterable[StoredVector], loader: Loader, plan: Diff, report: Report) -> Generator[LoadedImage]:
    """Load what was thought to have a vector already; rare: its row was changed or removed meanwhile."""
    for item in items:
        try:
            yield loader.pixels(item.image, item.change)
        except BadImage as error:
            _reject(Rejection.of(item.image, error), plan, report)


def _write_fresh(target: WriteTarget, batch: Batch) -> Batch:
    _write(batch.ready, target)
    return batch


def _write(ready: Sequence[ReadyRow], target: WriteTarget) -> None:
    if ready:
        with timed(target.profile, "upsert", len(ready)):
            target.store.upsert([item.row for item in ready])
        target.report.record_stored(ready)


def _reject(rejection: Rejection, plan: Diff, report: Report) -> None:
    complete, unreadable = not rejection.incomplete, rejection.unreadable
    report.reject(rejection, row_stays=plan.reject(rejection.image_id, complete=complete, unreadable=unreadable))
