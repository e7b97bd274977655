"""One run of ingest, from top to bottom: list → diff → load → batch → encode → upsert → index → prune."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lookalike.encode.engine import EncodingEngine, LazyEngine
from lookalike.encode.registry import DEFAULT_ENCODER
from lookalike.encode.stage_timer import NO_TIMER, StageTimer
from lookalike.ingest.pipeline.concurrency import in_background, in_parallel
from lookalike.ingest.pipeline.diff import Diff
from lookalike.ingest.pipeline.diff_source import count_changes
from lookalike.ingest.pipeline.existing_rows import ExistingRows, RowScope
from lookalike.ingest.pipeline.known_content import refuse_known_content
from lookalike.ingest.pipeline.limits import PipelineLimits
from lookalike.ingest.pipeline.load import ReadChanged
from lookalike.ingest.pipeline.move import delete_moved, read_source, require_source
from lookalike.ingest.pipeline.new_collection import NewCollection
from lookalike.ingest.pipeline.prune import list_removals, prune
from lookalike.ingest.pipeline.stages import PipelineContext, Stages
from lookalike.ingest.reports.column_advice import describe_columns, describe_other_sources
from lookalike.ingest.reports.report import Rejection, Report
from lookalike.ingest.run_lock import run_lock
from lookalike.ingest.sources.files import image_reader
from lookalike.ingest.sources.source import ImageSource
from lookalike.ingest.threshold import MoveOptions, PruneOptions, Threshold
from lookalike.schema.cancellation import CancelToken
from lookalike.schema.collection import require_same_encoder
from lookalike.schema.errors import BadSettings, BadSource, LimitExceeded
from lookalike.schema.filters.expression import quote_literal
from lookalike.schema.metadata import ColumnTypes
from lookalike.schema.milvus.column_kinds import ColumnKinds
from lookalike.schema.milvus.store import Store
from lookalike.schema.numbers import PLAIN, ValueFormat
from lookalike.schema.product import ProductImage
from lookalike.schema.settings import CollectionAddress

_BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Job:
    """What a run has to do."""

    source: ImageSource
    address: CollectionAddress
    encoder: str | None
    """A name, hub id or directory; None for the collection's own, or the default one for a new collection."""

    load_engine: Callable[[str], EncodingEngine]
    """Loads an encoder by that name."""

    limits: PipelineLimits
    columns: ColumnTypes
    """Declared metadata columns; they are indexed."""

    pruning: PruneOptions | None
    """None deletes nothing."""

    max_rejected: Threshold | None
    """None for any number."""

    move: MoveOptions | None = None
    """The source whose rows this one takes over; None for no source."""

    has_given_name: bool = False
    """Whether the caller has named the source: then it may have the same images as another one."""

    values: ValueFormat = PLAIN
    """How the source reads numbers."""

    warnings: tuple[str, ...] = ()
    """What is likely to be a mistake in the source, as was seen when it was opened."""

    read: ReadChanged = field(default_factory=lambda: image_reader().read_changed)
    timer: StageTimer = NO_TIMER

    def __post_init__(self) -> None:
        """Raise BadSettings for a source that moves to itself."""
        if self.move is not None and self.move.source == self.source.name:
            raise BadSettings(f"--move-source {self.move.source!r} is the source itself; name the one it was before")


def run(job: Job, report: Report, cancel: CancelToken) -> str:
    """Make the collection equal to the source; return the name of its encoder.

    A cancelled run stops between two batches, or before it deletes. Whatever is raised, the rows that the report counts
    are stored. Raises RunCancelled (a KeyboardInterrupt), LimitExceeded when a limit was passed, AlreadyRunning,
    BadSource, EncoderMismatch, EncoderUnavailable and StoreUnavailable.
    """
    with _lock_sources(job), _open_collection(job) as (store, engine):
        images = _list_images(job, store)
        context = PipelineContext(engine, job.limits, job.read, cancel, job.timer)
        try:
            diff = ingest_images(images, RowScope(job.source.name), store, report, context)
        except KeyboardInterrupt:
            store.flush_after(report.stored)
            raise
        for column, problem in store.index(job.columns).items():
            if problem:
                report.warn(f"column {column} is not indexed: {problem}")
        _report_source(job, store, report)
        # The last images may have been unchanged ones, which are reported by the hundred.
        report.on_progress(report.seen)
        _check_limits(report, job)
        cancel.check()
        # A new collection has nothing to delete.
        if job.pruning is not None and isinstance(store, Store):
            prune(diff, store, report, job.pruning)
        if job.move is not None and isinstance(store, Store):
            delete_moved(diff, store, report, job.move, job.source.name)
        store.require_live()
        return store.encoder


def ingest_images(
    images: Iterable[ProductImage | Rejection],
    scope: RowScope,
    store: Store | NewCollection,
    report: Report,
    context: PipelineContext,
) -> Diff:
    """Write the images of a source that are new or have changed; return its Diff, which knows what is left to delete.

    The stages run at the same time, and what waits between two of them is bounded. Only images whose file has changed
    are read, and only bytes that no row was made from are encoded. Milvus has acknowledged all that the report counts:
    run it again to continue a run that was killed.
    """
    limits, cancel, upserts = context.limits, context.cancel, store.parallel_writes
    report.start()
    # Reads the keys and hashes of all rows.
    stages = Stages(store, scope, report, context)
    # Lists the source and compares sizes and mtimes, on the thread that makes batches.
    changed = stages.diff_source(images)
    # Reads, hashes and decodes on `limits.threads` threads; at most `limits.workers` of them use the CPU at once, the
    # others wait for images from other machines.
    loaded = in_parallel(stages.load_image, changed, workers=limits.threads, ahead=limits.loaded_ahead, name="load")
    batches = in_background(stages.batch_images(loaded), ahead=_BATCHES_AHEAD)
    # Batches wait here for the encoder, which takes `parallel_batches` of them at a time.
    encoded = in_parallel(stages.encode_batch, batches, workers=limits.batches, ahead=limits.batches, name="encode")
    upserted = in_parallel(stages.upsert_encoded, encoded, workers=upserts, ahead=upserts, name="upsert")
    with closing(batches), closing(encoded), closing(upserted):
        for batch in upserted:
            cancel.check()
            stages.upsert_reused(batch)
    with context.timer.measure("flush", report.stored):
        store.flush_after(report.stored)
    return stages.diff


def dry_run(job: Job, report: Report, cancel: CancelToken) -> str:
    """Report what `run` would do; nothing is written or encoded, and new images are not opened."""
    with _open_collection(job) as (store, _):
        existing = ExistingRows(store, RowScope(job.source.name)).by_id
        diff = count_changes(_list_images(job, store), existing, report, job.read, cancel)
        _report_source(job, store, report)
        _check_limits(report, job)
        if job.pruning is not None:
            report.record_removed(existing[image_id] for image_id in list_removals(diff, job.pruning))
        if job.move is not None and isinstance(store, Store):
            report.record_removed(read_source(store, job.move.source).values())
        return job.encoder or store.encoder


def _report_source(job: Job, store: Store | NewCollection, report: Report) -> None:
    """Report what the source has beside images, and what is likely to be a mistake in it."""
    report.passed_over = dict(job.source.passed_over)
    for warning in job.warnings:
        report.add_warning(warning)
    _warn_about_columns(job, store, report)


def _warn_about_columns(job: Job, store: Store | NewCollection, report: Report) -> None:
    """Report columns that filters would search in vain: texts among numbers, or other types than elsewhere."""
    for warning in describe_columns(report.columns, job.columns, job.values):
        report.add_warning(warning)
    # A new collection has no other sources.
    if isinstance(store, Store) and report.stored:
        own = [job.source.name, *([job.move.source] if job.move else [])]
        others = ColumnKinds(store, " and ".join(f"source != {quote_literal(name)}" for name in own))
        for warning in describe_other_sources(report.columns, others):
            report.add_warning(warning)


@contextmanager
def _lock_sources(job: Job) -> Iterator[None]:
    """Lock the source, and the one whose rows it takes over: no other run writes their rows meanwhile."""
    with ExitStack() as locks:
        for name in [job.source.name, *([job.move.source] if job.move else [])]:
            locks.enter_context(run_lock(job.address.uri, job.address.collection, name))
        yield


@contextmanager
def _open_collection(job: Job) -> Iterator[tuple[Store | NewCollection, LazyEngine]]:
    """Open the collection; one without rows is created, or given to the encoder, when the first row is written.

    An encoder with the collection's own name is loaded when it is needed.
    """
    address = job.address
    with ExitStack() as opened:
        store = Store.find(address.uri, token=address.token, collection=address.collection)
        if store is not None:
            opened.enter_context(store)
        name = job.encoder or (DEFAULT_ENCODER if store is None else store.encoder)
        if store is None or not store.count():
            opened.close()
            engine = LazyEngine(lambda: job.load_engine(name), job.timer)
            yield opened.enter_context(NewCollection(address, name, lambda: engine.engine.fingerprint)), engine
            return
        engine = LazyEngine(lambda: _require_same(store, job.load_engine(name)), job.timer)
        if job.encoder is not None and _has_other_name(job.encoder, store):
            engine.engine  # noqa: B018  raises EncoderMismatch before anything is read
        yield store, engine


def _list_images(job: Job, store: Store | NewCollection) -> Iterator[ProductImage | Rejection]:
    """List the source. Raises DuplicateSource for a copy of another source, BadSettings for an unknown one to move."""
    if isinstance(store, NewCollection):
        if job.move is not None:
            raise BadSettings(
                f"--move-source {job.move.source!r} names no source: {job.address.collection!r} has no rows"
            )
        return job.source.images()
    if job.move is not None:
        require_source(store, job.move, job.source.name)
    elif not job.has_given_name:
        return refuse_known_content(job.source.images(), job.source.name, store)
    return job.source.images()


def _require_same(store: Store, engine: EncodingEngine) -> EncodingEngine:
    require_same_encoder(store.name, store.fingerprint, engine.fingerprint)
    return engine


def _has_other_name(encoder: str, store: Store) -> bool:
    """Compare names; under another name it may be the same encoder, which only loading it shows."""
    path = Path(encoder)
    return store.encoder != (str(path.resolve()) if path.is_dir() else encoder)


def _check_limits(report: Report, job: Job) -> None:
    """Raise when the source was empty, or more of it was rejected than allowed: then nothing must be deleted either."""
    if not report.seen and not (job.pruning and job.pruning.max_removals.allows_all):
        raise BadSource(f"SOURCE {job.source.name!r} lists no images; is it the right one, and complete?")
    if job.max_rejected is not None and report.rejected > job.max_rejected.of(report.seen):
        raise LimitExceeded(
            f"{report.rejected} of {report.seen} images were rejected, more than --max-rejected "
            f"{job.max_rejected.text}; what could be stored is stored"
        )
