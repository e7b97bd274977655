"""What `lookalike ingest` prints: a progress bar while it runs, then a summary and a profile."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click

from lookalike.ingest.reports.profile import Profile
from lookalike.ingest.reports.report import Report, Summary
from lookalike.ingest.sources.other_files import list_suffixes
from lookalike.schema.output import escape_controls

_MAX_COLUMNS = 40
"""How many columns a summary lists; JSON has them all."""


@contextmanager
def progress_bar(total: Callable[[], int | None], *, shown: bool) -> Iterator[Callable[[int], object]]:
    """Show a bar on a terminal: images done, images/s, time left. Yields the callback that updates it."""
    if not (shown and sys.stderr.isatty()):
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("ingest", total=total(), rate="")

        def on_progress(done: int) -> None:
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(task, completed=done, rate=f"{speed:.1f} images/s" if speed else "")

        yield on_progress


def print_summary(report: Report, where: dict[str, str | None], output: str, *, planned: bool) -> None:
    """Print the counts of a run, or of a dry run (`planned`), as a line or as JSON; the first rejections to stderr."""
    summary = report.summary()
    if output == "json":
        click.echo(json.dumps({**asdict(summary), **where, "dry_run": planned}))
        return
    for rejection in report.first_rejections:
        click.echo(f"rejected {rejection.image!a}: {escape_controls(rejection.reason)}", err=True)
    if summary.rejected > len(report.first_rejections):
        click.echo(f"… and {summary.rejected - len(report.first_rejections)} more; --report FILE lists all", err=True)
    click.echo(_format_summary(summary, planned=planned) + f" → {where['collection']} at {where['uri']}")
    if summary.columns:
        click.echo(f"columns: {_format_columns(summary.columns)}")
    if summary.passed_over:
        count = sum(summary.passed_over.values())
        files = "1 file that is no image" if count == 1 else f"{count} files that are no images"
        click.echo(f"passed over {files}: {list_suffixes(summary.passed_over)}")
    for warning in summary.warnings:
        click.echo(f"warning: {escape_controls(warning)}", err=True)


def print_profile(profile: Profile) -> None:
    """Print for each stage its time per image, its time over all threads, and how much of the run it was busy."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("stage", "images", "ms per image", "seconds", "busy"):
        table.add_column(title, justify="left" if title == "stage" else "right")
    for name, stage in profile.stages.items():
        if stage.images:
            per_image = f"{1_000 * stage.seconds / stage.images:.2f}"
            busy = f"{stage.busy / profile.seconds:.0%}"
            table.add_row(name, str(stage.images), per_image, f"{stage.seconds:.1f}", busy)
    console = Console(stderr=True)
    console.print(table)
    device_busy = profile.stages["forward"].busy / profile.seconds
    console.print(f"device busy {device_busy:.0%} of {profile.seconds:.1f} s", highlight=False)


def _format_columns(types: dict[str, str]) -> str:
    shown = [f"{escape_controls(name)} {kind}" for name, kind in types.items()][:_MAX_COLUMNS]
    return ", ".join(shown) + (f" and {len(types) - len(shown)} more" if len(types) > len(shown) else "")


def _format_summary(summary: Summary, *, planned: bool) -> str:
    parts = (
        f"{summary.new} new, {summary.changed} changed, {summary.metadata} with other metadata, "
        f"{summary.unchanged} unchanged, {summary.removed} removed"
    )
    if planned:
        return f"to store {summary.stored}, to reject {summary.rejected}: {parts}; nothing was written"
    # Images that were only compared say nothing about the speed of the encoder.
    rate = f" ({summary.images_per_second:.1f} images/s)" if summary.embedded else ""
    return (
        f"stored {summary.stored}, rejected {summary.rejected}: {parts}; "
        f"{summary.embedded} embedded, in {summary.seconds:.1f} s{rate}"
    )
