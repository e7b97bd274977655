"""`lookalike ingest` and `lookalike sample`: options in, summary out."""

import sys
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.encode.decode import MAX_PIXELS
from lookalike.ingest.options import engine_options, load_engine, reader_of, report_options, url_options
from lookalike.ingest.threshold import Threshold
from lookalike.schema.errors import (
    AlreadyRunning,
    BadSettings,
    BadSource,
    LimitExceeded,
    LookalikeError,
    StoreUnavailable,
)
from lookalike.schema.metadata import parse_column_types
from lookalike.schema.settings import ALL_ENGINES, setting, store_options

if TYPE_CHECKING:
    from lookalike.ingest.job import Job
    from lookalike.ingest.run_lock import Shutdown
    from lookalike.ingest.sources.folder import FolderSource
    from lookalike.ingest.sources.source import ImageSource

NOTHING_STORED = 1
_EXAMPLE_LAYOUT = "{category}/{product_id}/{image}"
_MAY_PASS = (StoreUnavailable, LimitExceeded, BadSource, AlreadyRunning)


@click.command()
@click.argument("source")
@setting(
    "--layout",
    metavar="TEMPLATE",
    help=f"What the path of an image says, for example '{_EXAMPLE_LAYOUT}'; {{price:float}} is a number.",
)
@click.option(
    "--field", "fields", metavar="NAME:TYPE", multiple=True, help="Type of a column: text, int, float, bool or list."
)
@setting("--encoder", help="Name, hub id or directory.  [default: the collection's own, or efficientnet-lite0]")
@store_options
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--prune", is_flag=True, help="Remove the rows of this source that the source has no more.")
@setting("--max-removals", default="20%", show_default=True, help="Remove nothing when --prune would remove more.")
@click.option("--prune-unreadable", is_flag=True, help="With --prune: also rows whose image cannot be read any more.")
@setting("--max-rejected", metavar="N|N%", help="Exit status 3 when more is rejected; nothing is removed then.")
@setting("--watch", type=click.IntRange(1), metavar="SECONDS", help="Run again and again, this long after each run.")
@setting(
    "--heartbeat",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Touch FILE as the run gets on, and when it has succeeded: for a health check.",
)
@partial(engine_options, engines=ALL_ENGINES)
@setting("--source-name", metavar="NAME", help="Whose rows these are.  [default: the full path of SOURCE]")
@click.option(
    "--profile", type=click.Path(path_type=Path), metavar="FILE", help="Say where time went; FILE opens in Perfetto."
)
@url_options
@report_options
def ingest(**options: Any) -> None:
    """Make a collection equal to SOURCE: a folder of images, or a manifest (.csv, .jsonl, .parquet, - for JSONL).

    Only what is new or has changed is embedded. A bad image is reported and the run goes on.
    Exit status 0 when all is done, 1 when something has failed, 2 when asked wrongly, 3 when a limit was passed.
    """
    from lookalike.ingest.run_lock import Shutdown

    with Shutdown() as stop:
        job = _job(options, stop)
        if options["watch"]:
            _watch(job, options, stop)
            return
        ending = _profiled(job, options, stop) if options["profile"] else _once(job, options, stop)
    if isinstance(ending, KeyboardInterrupt):
        click.echo("Interrupted. What is counted as stored is kept; run it again, and it does the rest.", err=True)
        sys.exit(128 + stop.asked)
    if ending is not None:
        if isinstance(ending, StoreUnavailable):
            click.echo("What is counted as stored is kept; run it again, and it does the rest.", err=True)
        raise ending


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def sample(folder: Path) -> None:
    """Draw a sample catalogue into FOLDER: photos to ingest, and queries to ask."""
    from lookalike.ingest.sample import draw_catalogue

    count = draw_catalogue(folder)
    click.echo(f"{count} photos in {folder / 'photos'}, and photos to ask with in {folder / 'queries'}")
    click.echo(f"Next: lookalike ingest {folder / 'photos'} --layout '{_EXAMPLE_LAYOUT}'")


def _once(
    job: "Job", options: dict[str, Any], stop: "Shutdown", *, again: bool = False
) -> KeyboardInterrupt | LookalikeError | None:
    """Run once and print what came of it; what ended it early is given back."""
    from lookalike.ingest.job import dry_run, run
    from lookalike.ingest.reports.heartbeat import Heartbeat
    from lookalike.ingest.reports.report import Report
    from lookalike.ingest.reports.terminal import print_summary, progress_bar

    heart = Heartbeat(options["heartbeat"])
    ending: KeyboardInterrupt | LookalikeError | None = None
    encoder = job.encoder
    shown = not options["no_progress"] and not options["watch"]
    with (
        progress_bar(job.source.count, shown=shown) as show,
        Report(options["report"], stop.checked(heart.shown(show)), append=again) as report,
    ):
        try:
            encoder = (dry_run if options["dry_run"] else run)(job, report)
            heart.beat()
        except (KeyboardInterrupt, LookalikeError) as error:
            ending = error
    where = {"collection": job.place.collection, "uri": job.place.uri, "encoder": encoder}
    summary = report.summary()
    worth_telling = report.seen if ending else not again
    if worth_telling or summary.stored or summary.removed:
        print_summary(report, where, options["output"], planned=options["dry_run"])
    if ending is None and summary.rejected and summary.rejected == report.seen and not options["watch"]:
        sys.exit(NOTHING_STORED)
    return ending


def _profiled(job: "Job", options: dict[str, Any], stop: "Shutdown") -> KeyboardInterrupt | LookalikeError | None:
    from lookalike.encode.profile import Profile
    from lookalike.ingest.reports.terminal import print_profile

    with Profile(options["profile"]) as profile:
        ending = _once(replace(job, profile=profile), options, stop)
        print_profile(profile)
    return ending


def _watch(job: "Job", options: dict[str, Any], stop: "Shutdown") -> None:
    """Run until asked to stop; quiet where nothing changes, and patient with what may pass."""
    again = False
    while not stop.asked:
        ending = _once(job, options, stop, again=again)
        if isinstance(ending, _MAY_PASS):
            click.echo(f"Error: {ending}\nTrying again in {options['watch']} s.", err=True)
        elif isinstance(ending, LookalikeError):
            raise ending
        again = True
        stop.wait(options["watch"])


def _job(options: dict[str, Any], stop: "Shutdown") -> "Job":
    from lookalike.encode.process_tuning import count_cores
    from lookalike.ingest.job import CollectionAddress, Job
    from lookalike.ingest.pipeline.prune import PruneOptions
    from lookalike.ingest.pipeline.stages import PipelineLimits

    most = Threshold(options["max_removals"])
    pruning = PruneOptions(most, options["prune_unreadable"]) if options["prune"] else None
    job = Job(
        source=_source(options, empty_is_meant=pruning is not None and most.everything),
        place=CollectionAddress(options["uri"], options["token"], options["collection"]),
        encoder=options["encoder"],
        load=cache(lambda name: load_engine(name, options)),
        pace=PipelineLimits(
            options["num_workers"] or count_cores(),
            options["max_pixels"] or MAX_PIXELS,
            fetches=options["max_per_host"],
        ),
        fields=parse_column_types(options["fields"]),
        pruning=pruning,
        max_rejected=Threshold(options["max_rejected"]) if options["max_rejected"] else None,
        read=reader_of(options, stop).read_changed,
    )
    # A dry run embeds nothing and reads little.
    if options["engine"] != "ray" or options["dry_run"]:
        return job
    from lookalike.ingest.ray.job import run_on_ray

    return run_on_ray(job, options)


def _source(options: dict[str, Any], *, empty_is_meant: bool) -> "ImageSource":
    """Open the source and say how it is read; one that holds no image ends here, before anything is made."""
    from lookalike.ingest.sources.folder import FolderSource
    from lookalike.ingest.sources.open import open_source

    path, layout, fields = options["source"], options["layout"], parse_column_types(options["fields"])
    if options["profile"] and options["watch"]:
        raise BadSettings("--profile measures one run; leave --watch out")
    if path == "-" and options["watch"]:
        raise BadSettings("--watch cannot read standard input again; give it a file")
    for flag in ("report", "profile"):
        _keep_apart(path, flag, options[flag])
    if options["profile"] and options["profile"] == options["report"]:
        raise BadSettings(f"--profile and --report are both {str(options['report'])!r}; give each a file of its own")
    source = open_source(path, layout, options["source_name"], fields)
    if not isinstance(source, FolderSource):
        click.echo(f"Manifest: {source.description}", err=True)
    elif not empty_is_meant:
        _state_layout(source, layout)
    return source


def _keep_apart(source: str, flag: str, file: Path | None) -> None:
    if file is not None and file.exists() and Path(source).exists() and file.samefile(source):
        raise BadSettings(f"--{flag} {str(file)!r} is the source itself; it would be written over")


def _state_layout(folder: "FolderSource", layout: str | None) -> None:
    from lookalike.ingest.sources.open import first_product

    path, place = first_product(folder)
    meaning = "".join(f", {name} {value!r}" for name, value in place.metadata.items())
    rule = f"Layout {layout}" if layout else f"No --layout: {folder.description}"
    click.echo(f"{rule}\n  {path!a} is product {place.product_id!r}{meaning}", err=True)
