"""The methods of Collection that write many rows: one run of ingest, one of reindex."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lookalike.api.session import Session
from lookalike.encode.decode import MAX_PIXELS
from lookalike.encode.engine import LazyEngine
from lookalike.encode.fetch.limits import MAX_PER_HOST
from lookalike.encode.process_tuning import count_cores
from lookalike.ingest.admin.reindex import ReindexResult, reindex
from lookalike.ingest.job import ImageSource, Job, dry_run, run
from lookalike.ingest.pipeline.limits import PipelineLimits
from lookalike.ingest.pipeline.load import ReadChanged
from lookalike.ingest.pipeline.stages import PipelineContext
from lookalike.ingest.reports.report import Report, Summary
from lookalike.ingest.run_lock import run_lock
from lookalike.ingest.sources.files import image_reader
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.open import first_product, open_source
from lookalike.ingest.threshold import PruneOptions, Threshold
from lookalike.schema.cancellation import CancelToken
from lookalike.schema.metadata import ColumnTypes, parse_column_types
from lookalike.schema.milvus.versions import Versions


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How a source is read: see Collection.ingest."""

    path: str
    layout: str | None
    name: str | None
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run goes, and what holds it back: see Collection.ingest."""

    allow_private_urls: bool
    prune: bool = False
    max_removals: int | str = "20%"
    max_rejected: int | str | None = None
    report: Path | None = None
    on_progress: Callable[[int], object] | None = None

    def open_report(self) -> Report:
        """Begin the report of a run."""
        return Report(self.report, self.on_progress or (lambda done: None))

    @property
    def limits(self) -> PipelineLimits:
        """How much a run does at once."""
        return PipelineLimits(count_cores(), MAX_PIXELS, fetches=MAX_PER_HOST)

    @property
    def read(self) -> ReadChanged:
        """What reads the images of the source."""
        return image_reader(allow_private=self.allow_private_urls, per_host=MAX_PER_HOST).read_changed


def run_ingest(session: Session, source: SourceOptions, options: RunOptions, *, is_dry: bool) -> Summary:
    """Make the collection equal to the source. Raises what ingest.job.run raises."""
    job = _job(session, source, options)
    with options.open_report() as report:
        (dry_run if is_dry else run)(job, report, CancelToken())
        summary = report.summary()
    if not is_dry:
        session.see_writes()
    return summary


def run_reindex(session: Session, encoder: str, options: RunOptions) -> ReindexResult:
    """Move the collection to another encoder. Raises what ingest.reindex.reindex raises."""
    place, max_missing = session.place, Threshold(str(options.max_rejected))
    with (
        Versions(place.uri, token=place.token, collection=place.collection) as versions,
        run_lock(place.uri, place.collection, "reindex"),
        options.open_report() as report,
    ):
        engine = LazyEngine(lambda: session.load_engine(encoder))
        moved = reindex(versions, PipelineContext(engine, options.limits, options.read), report, max_missing)
    session.encoder = encoder
    session.see_writes()
    return moved


def _job(session: Session, source: SourceOptions, options: RunOptions) -> Job:
    fields = parse_column_types(f"{name}:{kind}" for name, kind in source.fields.items())
    pruning = PruneOptions(Threshold(str(options.max_removals))) if options.prune else None
    return Job(
        source=_open(source, fields, is_empty_meant=pruning is not None and pruning.max_removals.allows_all),
        address=session.place,
        encoder=session.encoder,
        load_engine=session.load_engine,
        limits=options.limits,
        columns=fields,
        pruning=pruning,
        max_rejected=None if options.max_rejected is None else Threshold(str(options.max_rejected)),
        read=options.read,
    )


def _open(options: SourceOptions, fields: ColumnTypes, *, is_empty_meant: bool) -> ImageSource:
    """Open a source; a folder without images ends here, before a collection is made."""
    source = open_source(options.path, options.layout, options.name, fields)
    if isinstance(source, FolderSource) and not is_empty_meant:
        first_product(source)
    return source
