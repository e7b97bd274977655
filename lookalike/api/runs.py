"""The methods of Collection that write many rows: one run of ingest, one of reindex."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lookalike.api.parameter_names import name_parameters, replace_options
from lookalike.api.session import Session
from lookalike.encode.engine import LazyEngine
from lookalike.encode.fetch.limits import MAX_PER_HOST
from lookalike.encode.image_limits import MAX_PIXELS
from lookalike.encode.process_tuning import count_cores
from lookalike.ingest.admin.reindex import ReindexResult, reindex
from lookalike.ingest.admin.reindex import dry_run as dry_run_reindex
from lookalike.ingest.job import Job, dry_run, run
from lookalike.ingest.pipeline.limits import PipelineLimits
from lookalike.ingest.pipeline.load import ReadChanged
from lookalike.ingest.pipeline.stages import PipelineContext
from lookalike.ingest.reports.report import Report, Summary
from lookalike.ingest.run_lock import run_lock
from lookalike.ingest.sources.column_map import ColumnMap
from lookalike.ingest.sources.files import image_reader
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.open import look_at_folder, open_source
from lookalike.ingest.sources.source import ImageSource
from lookalike.ingest.threshold import MoveOptions, PruneOptions, Threshold
from lookalike.schema.cancellation import CancelToken
from lookalike.schema.metadata import ColumnTypes, parse_column_types
from lookalike.schema.milvus.versions import Versions
from lookalike.schema.numbers import PLAIN, ValueFormat


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How to read a source: see Collection.ingest."""

    path: str
    layout: str | None
    name: str | None
    fields: Mapping[str, str]
    values: ValueFormat = PLAIN
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run, and which limits stop the run: see Collection.ingest."""

    allow_private_urls: bool
    prune: bool = False
    move_source: str | None = None
    max_removals: int | str = "20%"
    max_rejected: int | str | None = None
    report: Path | None = None
    on_progress: Callable[[int], object] | None = None

    def open_report(self) -> Report:
        """Open the report of a run."""
        return Report(self.report, self.on_progress or (lambda done: None))

    @property
    def limits(self) -> PipelineLimits:
        """How many images the run reads, decodes and fetches at once."""
        return PipelineLimits(count_cores(), MAX_PIXELS, fetches=MAX_PER_HOST)

    @property
    def read_image(self) -> ReadChanged:
        """Reads the images of the source."""
        return image_reader(allow_private=self.allow_private_urls, per_host=MAX_PER_HOST).read_changed


@name_parameters()
def run_ingest(session: Session, source: SourceOptions, options: RunOptions, *, is_dry: bool) -> Summary:
    """Make the collection equal to the source. Raises what ingest.job.run raises."""
    job = _make_job(session, source, options)
    with options.open_report() as report:
        (dry_run if is_dry else run)(job, report, CancelToken())
        summary = report.summary()
        summary = replace(summary, warnings=tuple(map(replace_options, summary.warnings)))
    if not is_dry and (summary.stored or summary.removed):
        session.see_writes()
    return summary


@name_parameters()
def run_reindex(session: Session, encoder: str, options: RunOptions, *, is_dry: bool) -> ReindexResult:
    """Move the collection to another encoder. Raises what ingest.reindex.reindex raises."""
    address, max_missing = session.address, Threshold(str(options.max_rejected))
    with (
        Versions(address.uri, token=address.token, collection=address.collection) as versions,
        run_lock(address.uri, address.collection, "reindex"),
        options.open_report() as report,
    ):
        engine = LazyEngine(lambda: session.load_engine(encoder))
        context = PipelineContext(engine, options.limits, options.read_image)
        if is_dry:
            return dry_run_reindex(versions, context, report, max_missing)
        result = reindex(versions, context, report, max_missing)
    session.encoder = encoder
    session.see_writes()
    return result


def _make_job(session: Session, source: SourceOptions, options: RunOptions) -> Job:
    fields = parse_column_types(f"{name}:{kind}" for name, kind in source.fields.items())
    max_removals = Threshold(str(options.max_removals))
    pruning = PruneOptions(max_removals) if options.prune else None
    may_be_empty = pruning is not None and pruning.max_removals.allows_all
    opened, warnings = _open_source(source, fields, may_be_empty=may_be_empty)
    return Job(
        source=opened,
        address=session.address,
        encoder=session.encoder,
        load_engine=session.load_engine,
        limits=options.limits,
        columns=fields,
        values=source.values,
        warnings=warnings,
        pruning=pruning,
        max_rejected=None if options.max_rejected is None else Threshold(str(options.max_rejected)),
        move=None if options.move_source is None else MoveOptions(options.move_source, max_removals),
        has_given_name=source.name is not None,
        read=options.read_image,
    )


def _open_source(
    options: SourceOptions, fields: ColumnTypes, *, may_be_empty: bool
) -> tuple[ImageSource, tuple[str, ...]]:
    """Open a source; return it, and what is likely to be a mistake in it.

    Raises BadSource for a folder without images, before a collection is created for it.
    """
    source = open_source(options.path, options.layout, options.name, fields, options.values, ColumnMap(options.columns))
    if isinstance(source, FolderSource) and not may_be_empty:
        return source, look_at_folder(source, options.layout).warnings
    return source, ()
