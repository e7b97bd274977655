"""The command-line options of runs, and the typed settings that they become."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click

from lookalike.encode.fetch.limits import MAX_PER_HOST
from lookalike.encode.options import EngineConfig
from lookalike.encode.process_tuning import count_cores
from lookalike.ingest.pipeline.limits import PipelineLimits
from lookalike.ingest.sources.column_map import ColumnMap
from lookalike.ingest.threshold import MoveOptions, PruneOptions, Threshold
from lookalike.schema.errors import BadSettings
from lookalike.schema.metadata import ColumnTypes, parse_column_types
from lookalike.schema.numbers import ValueFormat
from lookalike.schema.output import format_option
from lookalike.schema.settings import CollectionAddress, setting_option

if TYPE_CHECKING:
    from lookalike.ingest.pipeline.load import ReadChanged
    from lookalike.schema.cancellation import CancelToken

Command = TypeVar("Command", bound=Callable[..., Any])


def url_options(command: Command) -> Command:
    """Add --allow-private-urls and --max-per-host."""
    private = setting_option(
        "--allow-private-urls",
        is_flag=True,
        help="Read images also from URLs that lead to this machine or to a private network.",
    )
    per_host = setting_option(
        "--max-per-host",
        type=click.IntRange(1, 256),
        default=MAX_PER_HOST,
        show_default=True,
        help="Images that are fetched from one web server at once.",
    )
    return private(per_host(command))


class TextList(click.types.StringParamType):
    """Texts that may have spaces; bars separate them in an environment variable."""

    envvar_list_splitter = "|"


def value_options(command: Command) -> Command:
    """Add --decimal-comma, --thousands, --strip-currency and --null-value."""
    comma = setting_option("--decimal-comma", is_flag=True, help="Read 12,5 and 1.234,50 as numbers, but not 12.5.")
    thousands = setting_option("--thousands", is_flag=True, help="Read 1,299.00 as a number, as --strip-currency does.")
    currency = setting_option("--strip-currency", is_flag=True, help="Read € 12.50, 12.50 EUR and $1,299 as numbers.")
    null = setting_option(
        "--null-value",
        "null_values",
        type=TextList(),
        metavar="TEXT",
        multiple=True,
        help="A product with this text in a column does not have the column, for example 'on request'; repeatable.",
    )
    return comma(thousands(currency(null(command))))


def parse_value_format(options: Mapping[str, Any]) -> ValueFormat:
    """Take the format from a command's `value_options`."""
    return ValueFormat(
        options["decimal_comma"],
        options["thousands"],
        options["strip_currency"],
        frozenset(text.strip() for text in options["null_values"]),
    )


def report_options(command: Command) -> Command:
    """Add --report, --format and --no-progress."""
    report = setting_option(
        "--report", type=click.Path(path_type=Path), help="JSONL file: a line for each rejected or changed image."
    )
    quiet = setting_option("--no-progress", is_flag=True, help="Show no progress bar.")
    return report(format_option("table", "json")(quiet(command)))


@dataclass(frozen=True, slots=True)
class UrlOptions:
    """Which URLs are read, and how many at once: see `url_options`."""

    allow_private: bool
    max_per_host: int

    @classmethod
    def from_click(cls, options: Mapping[str, Any]) -> Self:
        """Take them from a command's options."""
        return cls(options["allow_private_urls"], options["max_per_host"])

    def reader(self, cancel: "CancelToken") -> "ReadChanged":
        """Return what reads images; it stops waiting for a server when the token is cancelled."""
        from lookalike.ingest.sources.files import image_reader

        reader = image_reader(allow_private=self.allow_private, per_host=self.max_per_host, cancelled=cancel.event)
        return reader.read_changed


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """Where and how a run is reported: see `report_options`."""

    file: Path | None
    format: str
    show_progress: bool

    @classmethod
    def from_click(cls, options: Mapping[str, Any]) -> Self:
        """Take them from a command's options."""
        return cls(options["report"], options["output"], not options["no_progress"])


def pipeline_limits(engine: EngineConfig, urls: UrlOptions) -> PipelineLimits:
    """Return how much a run does at once on this machine."""
    return PipelineLimits(engine.num_workers or count_cores(), engine.max_pixels, fetches=urls.max_per_host)


@dataclass(frozen=True, slots=True)
class ReindexOptions:
    """What `lookalike reindex` was called with."""

    address: CollectionAddress
    encoder: str
    max_missing: Threshold
    engine: EngineConfig
    urls: UrlOptions
    report: ReportOptions
    is_dry_run: bool

    @classmethod
    def from_click(cls, options: Mapping[str, Any]) -> Self:
        """Take them from the command's options. Raises BadSettings for a value that cannot be used."""
        return cls(
            CollectionAddress.from_click(options),
            options["encoder"],
            Threshold(options["max_rejected"]),
            EngineConfig.from_click(options),
            UrlOptions.from_click(options),
            ReportOptions.from_click(options),
            options["dry_run"],
        )


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Which source is read, and how."""

    path: str
    layout: str | None
    name: str | None
    columns: ColumnTypes
    values: ValueFormat
    column_map: ColumnMap


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """What `lookalike ingest` was called with."""

    source: SourceOptions
    address: CollectionAddress
    encoder: str | None
    engine: EngineConfig
    uses_ray: bool
    urls: UrlOptions
    report: ReportOptions
    is_dry_run: bool
    pruning: PruneOptions | None
    move: MoveOptions | None
    max_rejected: Threshold | None
    watch: int | None
    """Seconds between two runs; None for one run."""

    heartbeat: Path | None
    profile: Path | None

    @classmethod
    def from_click(cls, options: Mapping[str, Any]) -> Self:
        """Take them from the command's options. Raises BadSettings for a value that cannot be used."""
        if options["prune_unreadable"] and not options["prune"]:
            raise BadSettings("--prune-unreadable does nothing alone; add --prune, or leave it out")
        pruning = PruneOptions(Threshold(options["max_removals"]), options["prune_unreadable"])
        moved_from = options["move_source"]
        return cls(
            source=SourceOptions(
                options["source"],
                options["layout"],
                options["source_name"],
                parse_column_types(options["fields"]),
                parse_value_format(options),
                ColumnMap.parse(options["column"]),
            ),
            address=CollectionAddress.from_click(options),
            encoder=options["encoder"],
            engine=EngineConfig.from_click(options),
            uses_ray=options["engine"] == "ray",
            urls=UrlOptions.from_click(options),
            report=ReportOptions.from_click(options),
            is_dry_run=options["dry_run"],
            pruning=pruning if options["prune"] else None,
            move=None if moved_from is None else MoveOptions(moved_from, pruning.max_removals),
            max_rejected=Threshold(options["max_rejected"]) if options["max_rejected"] else None,
            watch=options["watch"],
            heartbeat=options["heartbeat"],
            profile=options["profile"],
        )
