"""`lookalike ingest` and `lookalike sample`: options in, summary out."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.encode.options import check_encoder_option, engine_options
from lookalike.ingest.options import IngestOptions, TextList, report_options, url_options, value_options
from lookalike.schema.errors import AlreadyRunning, BadSource, LimitExceeded, LookalikeError, StoreUnavailable
from lookalike.schema.settings import ALL_ENGINES, complete_files, setting_option, store_options

if TYPE_CHECKING:
    from lookalike.ingest.job import Job
    from lookalike.schema.cancellation import CancelToken

NOTHING_STORED = 1
_EXAMPLE_LAYOUT = "{category}/{product_id}/{image}"
_RETRIED_BY_WATCH = (StoreUnavailable, LimitExceeded, BadSource, AlreadyRunning)


@click.command()
@click.argument("source", shell_complete=complete_files)
@setting_option(
    "--layout",
    metavar="TEMPLATE",
    help=f"What the path of an image says, for example '{_EXAMPLE_LAYOUT}'; {{price:float}} is a number.",
)
@setting_option(
    "--field", "fields", metavar="NAME:TYPE", multiple=True, help="Type of a column: text, int, float, bool or list."
)
@setting_option(
    "--column",
    type=TextList(),
    metavar="NAME=COLUMN",
    multiple=True,
    help="Read a column of a manifest under another name, for example product_id=sku; repeatable.",
)
@value_options
@setting_option(
    "--encoder",
    callback=check_encoder_option,
    help="Name, hub id or directory.  [default: the collection's own, or efficientnet-lite0]",
)
@store_options
@click.option("--dry-run", is_flag=True, help="Only report what would be done.")
@click.option("--prune", is_flag=True, help="Delete the rows of this source whose image it no longer has.")
@setting_option(
    "--max-removals",
    default="20%",
    show_default=True,
    help="Delete nothing when --prune would delete more, or --move-source more that the new source lacks.",
)
@click.option("--prune-unreadable", is_flag=True, help="With --prune: also rows whose image cannot be read any more.")
@setting_option(
    "--max-rejected", metavar="N|N%", help="Exit with status 3 when more is rejected; nothing is deleted then."
)
@setting_option(
    "--watch", type=click.IntRange(1), metavar="SECONDS", help="Run again and again, this long after each run."
)
@setting_option(
    "--heartbeat",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Touch FILE while the run makes progress, and when it has succeeded: for a health check.",
)
@partial(engine_options, engines=ALL_ENGINES)
@setting_option("--source-name", metavar="NAME", help="Name of the source in the collection.  [default: its full path]")
@click.option(
    "--move-source",
    metavar="OLD",
    help="SOURCE is the source OLD at another path: store it under its new name, then delete the rows of OLD.",
)
@click.option(
    "--profile", type=click.Path(path_type=Path), metavar="FILE", help="Print where time went; FILE opens in Perfetto."
)
@url_options
@report_options
def ingest(**options: Any) -> None:
    """Make a collection equal to SOURCE: a folder of images, or a manifest (.csv, .tsv, .jsonl, .parquet, - for JSONL).

    Only what is new or has changed is encoded. A bad image is reported and the run goes on.
    Exit status 0 on success, 1 on failure, 2 for invalid usage, 3 when a limit was passed.
    """
    from lookalike.ingest.build_job import build_job
    from lookalike.ingest.shutdown import Shutdown

    typed = IngestOptions.from_click(options)
    with Shutdown() as shutdown:
        job = build_job(typed, shutdown.token)
        if typed.watch is not None:
            _watch(job, typed, typed.watch, shutdown.token)
            return
        error = _run_once(job, typed, shutdown.token)
    if isinstance(error, KeyboardInterrupt):
        click.echo("Interrupted. What is counted as stored is kept; run it again to complete it.", err=True)
        sys.exit(128 + shutdown.signal_number)
    if error is not None:
        if isinstance(error, StoreUnavailable):
            click.echo("What is counted as stored is kept; run it again to complete it.", err=True)
        raise error


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def sample(folder: Path) -> None:
    """Draw a sample catalogue into FOLDER: photos to ingest, and photos to search with."""
    from lookalike.ingest.sample import draw_catalogue

    count = draw_catalogue(folder)
    click.echo(f"{count} photos in {folder / 'photos'}, and photos to search with in {folder / 'queries'}")
    click.echo(f"Next: lookalike ingest {folder / 'photos'} --layout '{_EXAMPLE_LAYOUT}'")


def _run_once(job: "Job", options: IngestOptions, cancel: "CancelToken") -> KeyboardInterrupt | LookalikeError | None:
    """Run a job, with a profile where one is wanted; return the error that stopped it."""
    if options.profile is None:
        return _run(job, options, cancel)
    from lookalike.ingest.reports.profile import Profile
    from lookalike.ingest.reports.terminal import print_profile

    with Profile(options.profile) as profile:
        error = _run(replace(job, timer=profile), options, cancel)
        print_profile(profile)
    return error


def _watch(job: "Job", options: IngestOptions, seconds: int, cancel: "CancelToken") -> None:
    """Run a job until it is cancelled, and retry after errors that may pass; without changes, print nothing."""
    is_repeat = False
    while not cancel.is_cancelled:
        error = _run(job, options, cancel, is_repeat=is_repeat)
        if isinstance(error, _RETRIED_BY_WATCH):
            click.echo(f"Error: {error}\nTrying again in {seconds} s.", err=True)
        elif isinstance(error, LookalikeError):
            raise error
        elif error is None:
            job = replace(job, move=None)
        is_repeat = True
        cancel.wait(seconds)


def _run(
    job: "Job", options: IngestOptions, cancel: "CancelToken", *, is_repeat: bool = False
) -> KeyboardInterrupt | LookalikeError | None:
    """Run a job and print its summary; return the error that stopped it. A repeated run appends to the report."""
    from lookalike.ingest.job import dry_run, run
    from lookalike.ingest.reports.heartbeat import Heartbeat
    from lookalike.ingest.reports.report import Report
    from lookalike.ingest.reports.terminal import print_summary, progress_bar

    heartbeat = Heartbeat(options.heartbeat)
    error: KeyboardInterrupt | LookalikeError | None = None
    encoder = job.encoder
    with (
        progress_bar(job.source.count, shown=options.report.show_progress and not options.watch) as show,
        Report(options.report.file, heartbeat.shown(show), append=is_repeat) as report,
    ):
        try:
            encoder = (dry_run if options.is_dry_run else run)(job, report, cancel)
            heartbeat.beat()
        except (KeyboardInterrupt, LookalikeError) as stopped_by:
            error = stopped_by
    summary = report.summary()
    is_worth_printing = report.seen if error else not is_repeat
    if is_worth_printing or summary.stored or summary.removed:
        collection = {"collection": job.address.collection, "uri": job.address.uri, "encoder": encoder}
        print_summary(report, collection, options.report.format, planned=options.is_dry_run)
    if error is None and summary.rejected and summary.rejected == report.seen and not options.watch:
        sys.exit(NOTHING_STORED)
    return error
