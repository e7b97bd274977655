"""The commands that keep a collection: delete, reindex, rollback, versions, export, import."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.encode.decode import MAX_PIXELS
from lookalike.encode.process_tuning import count_cores
from lookalike.ingest.options import engine_options, load_engine, reader_of, report_options, url_options
from lookalike.ingest.threshold import Threshold
from lookalike.schema.filters.parser import parse_filter
from lookalike.schema.output import format_option, print_table
from lookalike.schema.settings import setting, store_options

if TYPE_CHECKING:
    from lookalike.schema.milvus.store import Store
    from lookalike.schema.milvus.versions import Versions


@click.command()
@click.option("--product", "products", metavar="ID", multiple=True, help="A product; may be repeated.")
@click.option("--where", metavar="CONDITION", multiple=True, help="Such as 'brand = Acme'; repeated, all must hold.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_options
@format_option("table", "json")
def delete(products: tuple[str, ...], where: tuple[str, ...], output: str, **options: Any) -> None:
    """Remove products from a collection, by id or by condition.

    What their source still names comes back with its next ingest.
    """
    from lookalike.ingest.admin.deletion import choose_images, delete_images, find_images

    chosen = choose_images(products, parse_filter(where))
    with _store(options) as store:
        rows = find_images(store, chosen)
        if where and not options["yes"] and not options["dry_run"] and sys.stdin.isatty():
            click.confirm(f"Remove {len(rows)} images of {len(set(rows.values()))} products?", abort=True, err=True)
        if not options["dry_run"]:
            delete_images(store, list(rows))
    counts = {"removed": len(rows), "products": len(set(rows.values())), "dry_run": options["dry_run"]}
    done = "would remove" if options["dry_run"] else "removed"
    _tell(counts, output, f"{done} {len(rows)} images of {counts['products']} products")


@click.command()
@click.option("--encoder", required=True, help="Name, hub id or directory of the encoder to move to.")
@store_options
@setting("--max-rejected", default="0", show_default=True, metavar="N|N%", help="Move only if no more are missing.")
@engine_options
@url_options
@report_options
def reindex(encoder: str, output: str, **options: Any) -> None:
    """Move a collection to another encoder, from the images that it knows.

    Searches go on all the while, and the version before is kept for `lookalike rollback`. Killed, it is continued by
    running it again.
    """
    from lookalike.encode.engine import LazyEngine
    from lookalike.ingest.admin.reindex import reindex as move
    from lookalike.ingest.pipeline.stages import PipelineLimits
    from lookalike.ingest.reports.report import Report
    from lookalike.ingest.reports.terminal import progress_bar
    from lookalike.ingest.run_lock import Shutdown, run_lock

    pace = PipelineLimits(
        options["num_workers"] or count_cores(), options["max_pixels"] or MAX_PIXELS, fetches=options["max_per_host"]
    )
    most_missing = Threshold(options["max_rejected"])
    alone = run_lock(options["uri"], options["collection"], "reindex")
    with _store(options) as live, _versions(options) as versions, Shutdown() as stop, alone:
        engine = load_engine(encoder, options)
        with (
            progress_bar(live.count, shown=not options["no_progress"]) as show,
            Report(options["report"], stop.checked(show)) as report,
        ):
            model = LazyEngine(lambda: engine, read=reader_of(options, stop).read_changed)
            moved = move(versions, model, report, pace, most_missing)
    summary = report.summary()
    counts = {**asdict(moved), "stored": summary.stored, "rejected": summary.rejected, "seconds": summary.seconds}
    name = options["collection"]
    if moved.before == moved.after:
        _tell(counts, output, f"{name} is filled by {engine.encoder.fingerprint.encoder} already; nothing to do")
        return
    line = f"{name} is {moved.after} now: {summary.stored} images in {summary.seconds:.1f} s"
    _tell(counts, output, f"{line}; back with: lookalike rollback")


@click.command()
@click.option("--to", metavar="VERSION", help="A version by name.  [default: the one before the live one]")
@store_options
@format_option("table", "json")
def rollback(to: str | None, output: str, **options: Any) -> None:
    """Make the version that was live before live again; once more, and it is as it was."""
    with _versions(options) as versions:
        before = versions.live.name
        after = versions.once_live(to).name if to else versions.before_live().name
        versions.go_live(after)
    line = f"{options['collection']} is {after} now, as it was when it was left; the next ingest brings it up to date"
    _tell({"before": before, "after": after}, output, line)


@click.command()
@click.option("--drop", metavar="VERSION", multiple=True, help="Drop a version for good; may be repeated.")
@store_options
@format_option("table", "json")
def versions(drop: tuple[str, ...], output: str, **options: Any) -> None:
    """List the versions of a collection, or drop some."""
    with _versions(options) as opened:
        for name in drop:
            opened.drop(name)
        found = []
        for version in opened.all():
            with opened.open(version.name) as store:
                found.append({**asdict(version), "encoder": version.fingerprint.encoder, "images": store.count()})
    if output == "json":
        click.echo(json.dumps({"versions": found}))
        return
    rows = [["live" if v["live"] else "", v["name"], v["encoder"], v["images"], v["made"]] for v in found]
    print_table(["", "version", "encoder", "images", "made"], rows)


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@store_options
@format_option("table", "json")
def export_rows(file: Path, output: str, **options: Any) -> None:
    """Write a collection, with its vectors, to the Parquet file FILE."""
    from lookalike.ingest.admin.parquet import export_rows as write

    with _store(options) as store:
        count = write(store, file)
    _tell({"exported": count, "file": str(file)}, output, f"{count} rows in {file}")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@store_options
@format_option("table", "json")
def import_rows(file: Path, output: str, **options: Any) -> None:
    """Bring the rows of FILE, written by `lookalike export`, into a collection of the same encoder, or a new one."""
    from lookalike.ingest.admin.parquet import check_file
    from lookalike.ingest.admin.parquet import import_rows as read
    from lookalike.schema.milvus.store import Store

    fingerprint = check_file(file)
    with Store.create(options["uri"], fingerprint, token=options["token"], collection=options["collection"]) as store:
        count = read(store, file)
    _tell({"imported": count, "file": str(file)}, output, f"{count} rows → {options['collection']} at {options['uri']}")


def _store(options: dict[str, Any]) -> "Store":
    from lookalike.schema.milvus.store import Store

    return Store.open(options["uri"], token=options["token"], collection=options["collection"])


def _versions(options: dict[str, Any]) -> "Versions":
    from lookalike.schema.milvus.versions import Versions

    return Versions(options["uri"], token=options["token"], collection=options["collection"])


def _tell(counts: dict[str, Any], output: str, line: str) -> None:
    click.echo(json.dumps(counts) if output == "json" else line)
