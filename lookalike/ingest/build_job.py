"""From the options of `lookalike ingest` to the job of its runs."""

from functools import cache
from pathlib import Path

import click

from lookalike.encode.load_engine import load_engine
from lookalike.ingest.job import Job
from lookalike.ingest.options import IngestOptions, pipeline_limits
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.open import FirstLook, look_at_folder, open_source
from lookalike.ingest.sources.source import ImageSource
from lookalike.schema.cancellation import CancelToken
from lookalike.schema.errors import BadSettings


def build_job(options: IngestOptions, cancel: CancelToken) -> Job:
    """Open the source and say how it is read; reading stops when the token is cancelled.

    Raises BadSettings for options that do not go together, and BadSource.
    """
    _check_options(options)
    source, warnings = _open_source(options)
    job = Job(
        source=source,
        address=options.address,
        encoder=options.encoder,
        load_engine=cache(lambda name: load_engine(name, options.engine)),
        limits=pipeline_limits(options.engine, options.urls),
        columns=options.source.columns,
        values=options.source.values,
        warnings=warnings,
        pruning=options.pruning,
        max_rejected=options.max_rejected,
        move=options.move,
        has_given_name=options.source.name is not None,
        read=options.urls.reader(cancel),
    )
    # A dry run encodes nothing and reads little.
    if not options.uses_ray or options.is_dry_run:
        return job
    from lookalike.ingest.ray.job import move_to_ray

    return move_to_ray(job, options)


def _check_options(options: IngestOptions) -> None:
    report, profile, source = options.report.file, options.profile, options.source.path
    if profile and options.watch:
        raise BadSettings("--profile measures one run; leave --watch out")
    if source == "-" and options.watch:
        raise BadSettings("--watch cannot read standard input again; give it a file")
    for flag, file in (("report", report), ("profile", profile)):
        if file is not None and file.exists() and Path(source).exists() and file.samefile(source):
            raise BadSettings(f"--{flag} {str(file)!r} is the source itself, and would overwrite it; name another file")
    if profile and profile == report:
        raise BadSettings(f"--profile and --report are both {str(report)!r}; give each a file of its own")


def _open_source(options: IngestOptions) -> tuple[ImageSource, tuple[str, ...]]:
    """Open the source and print how it is read; return it, and what is likely to be a mistake in it.

    Raises BadSource for a folder without images that must have some.
    """
    given = options.source
    source = open_source(given.path, given.layout, given.name, given.columns, given.values, given.column_map)
    may_be_empty = options.pruning is not None and options.pruning.max_removals.allows_all
    if not isinstance(source, FolderSource):
        click.echo(f"Manifest: {source.description}", err=True)
        return source, ()
    if may_be_empty:
        return source, ()
    first = look_at_folder(source, given.layout)
    _print_layout(first, source.description, given.layout)
    return source, first.warnings


def _print_layout(first: FirstLook, description: str, layout: str | None) -> None:
    metadata = "".join(f", {name} {value!r}" for name, value in first.fields.metadata.items())
    rule = f"Layout {layout}" if layout else f"No --layout: {description}"
    click.echo(f"{rule}\n  {first.path!a} is product {first.fields.product_id!r}{metadata}", err=True)
    # The summary repeats it, but may be hours away.
    for warning in first.warnings:
        click.echo(f"warning: {warning}", err=True)
