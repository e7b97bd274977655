"""One run of `lookalike ingest`: open the collection, bring the source into it, remove what the source has no more."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lookalike.encode.engine import EncodingEngine, LazyEngine, ReadChanged
from lookalike.encode.profile import Profile
from lookalike.encode.registry import DEFAULT_ENCODER
from lookalike.ingest.pipeline.existing_rows import RowScope
from lookalike.ingest.pipeline.prune import PruneOptions, prune, to_prune
from lookalike.ingest.pipeline.stages import PipelineLimits, WriteTarget, count_changes, ingest
from lookalike.ingest.reports.report import Report
from lookalike.ingest.run_lock import run_lock
from lookalike.ingest.sources.files import image_reader
from lookalike.ingest.sources.source import ImageSource
from lookalike.ingest.threshold import Threshold
from lookalike.schema.collection import require_same_encoder
from lookalike.schema.errors import BadSource, LimitExceeded
from lookalike.schema.metadata import ColumnTypes
from lookalike.schema.milvus.store import Store


@dataclass(frozen=True, slots=True)
class CollectionAddress:
    """Which collection of which Milvus."""

    uri: str
    token: str
    collection: str


@dataclass(frozen=True, slots=True)
class Job:
    """What a run has to do; `encoder` is None for the collection's own, or the default one for a new collection."""

    source: ImageSource
    place: CollectionAddress
    encoder: str | None
    load: Callable[[str], EncodingEngine]
    pace: PipelineLimits
    fields: ColumnTypes
    pruning: PruneOptions | None
    max_rejected: Threshold | None
    profile: Profile | None = None
    read: ReadChanged = field(default_factory=lambda: image_reader().read_changed)


def run(job: Job, report: Report) -> str:
    """Make the collection equal to the source; return the name of its encoder.

    Raises LimitExceeded when a limit was passed, Busy when another run is at it; what the report counts is kept whatever
    is raised.
    """
    place = job.place
    with run_lock(place.uri, place.collection, job.source.name), _opened(job) as (store, model):
        try:
            plan = ingest(
                job.source.images(), RowScope(job.source.name), model, WriteTarget(store, report, job.profile), job.pace
            )
        except KeyboardInterrupt:
            store.flush_after(report.stored)
            raise
        for column, problem in store.index(job.fields).items():
            if problem:
                report.warn(f"column {column} is not indexed: {problem}")
        _check(report, job)
        # The last moment at which the end may have been asked for.
        report.on_progress(report.seen)
        if job.pruning is not None:
            prune(plan, store, report, job.pruning)
        store.require_live()
        return store.fingerprint.encoder


def dry_run(job: Job, report: Report) -> str:
    """Report what `run` would do; nothing is written, nothing embedded, new images are not opened."""
    place = job.place
    store = Store.find(place.uri, token=place.token, collection=place.collection)
    try:
        if store is not None and job.encoder is not None and _goes_by_another_name(job.encoder, store):
            _matching(store, job.load(job.encoder))
        plan = count_changes(job.source.images(), job.source.name, store, report, job.read)
        _check(report, job)
        if job.pruning is not None:
            report.record_removed(plan.known[image_id] for image_id in to_prune(plan, job.pruning))
        return job.encoder or (store.fingerprint.encoder if store else DEFAULT_ENCODER)
    finally:
        if store is not None:
            store.close()


@contextmanager
def _opened(job: Job) -> Iterator[tuple[Store, LazyEngine]]:
    """Open the collection, or make it. An encoder that goes by the name of the collection's is loaded when needed."""
    uri, token, collection = job.place.uri, job.place.token, job.place.collection
    store = Store.find(uri, token=token, collection=collection)
    if store is None:
        model = LazyEngine(lambda: job.load(job.encoder or DEFAULT_ENCODER), job.profile, job.read)
        store = Store.create(uri, model.engine.fingerprint, token=token, collection=collection)
    else:
        name = job.encoder or store.fingerprint.encoder
        model = LazyEngine(lambda: _matching(store, job.load(name)), job.profile, job.read)
    with store:
        if job.encoder is not None and _goes_by_another_name(job.encoder, store):
            model.engine  # noqa: B018  raises when it is another
        yield store, model


def _matching(store: Store, engine: EncodingEngine) -> EncodingEngine:
    require_same_encoder(store.name, store.fingerprint, engine.fingerprint)
    return engine


def _goes_by_another_name(encoder: str, store: Store) -> bool:
    """Only loading it tells whether it is the same all the same; a directory is called by its full path."""
    path = Path(encoder)
    return store.fingerprint.encoder != (str(path.resolve()) if path.is_dir() else encoder)


def _check(report: Report, job: Job) -> None:
    """Raise when the source was empty, or more of it bad than allowed: then nothing is to be removed either."""
    if not report.seen and not (job.pruning and job.pruning.most.everything):
        raise BadSource(f"SOURCE {job.source.name!r} names no images; is it the right one, and whole?")
    if job.max_rejected is not None and report.rejected > job.max_rejected.of(report.seen):
        raise LimitExceeded(
            f"{report.rejected} of {report.seen} images were rejected, more than --max-rejected "
            f"{job.max_rejected.text}; what could be stored is stored"
        )
