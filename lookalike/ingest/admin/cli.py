"""The commands that maintain a collection: delete, reindex, rollback, versions, export, import."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.encode.options import engine_options
from lookalike.ingest.options import ReindexOptions, pipeline_limits, report_options, url_options
from lookalike.schema.errors import BadSettings
from lookalike.schema.filters.parser import parse_filter
from lookalike.schema.output import format_option, print_table
from lookalike.schema.settings import CollectionAddress, setting_option, store_options

if TYPE_CHECKING:
    from lookalike.ingest.admin.reindex import ReindexResult
    from lookalike.ingest.reports.report import Summary
    from lookalike.schema.milvus.store import Store
    from lookalike.schema.milvus.versions import Versions


@click.command()
@click.option("--product", "products", metavar="ID", multiple=True, help="A product; may be repeated.")
@click.option("--where", metavar="CONDITION", multiple=True, help="Such as 'brand = Acme'; repeated, all must hold.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Only count.")
@click.option("--yes", "is_confirmed", is_flag=True, help="Do not ask for confirmation.")
@store_options
@format_option("table", "json")
def delete(products: tuple[str, ...], where: tuple[str, ...], output: str, is_dry_run: bool, **options: Any) -> None:
    """Delete products from a collection, by id or by condition.

    What their source still has comes back with its next ingest.
    """
    from lookalike.ingest.admin.deletion import build_delete_filter, delete_images, find_images, require_products

    selection = build_delete_filter(products, parse_filter(where))
    with open_store(CollectionAddress.from_click(options)) as store:
        require_products(store, products)
        rows = find_images(store, selection)
        product_count = len(set(rows.values()))
        if not is_dry_run:
            if not options["is_confirmed"]:
                confirm(f"Delete {len(rows)} images of {product_count} products?")
            delete_images(store, list(rows))
    counts = {"removed": len(rows), "products": product_count, "dry_run": is_dry_run}
    verb = "would remove" if is_dry_run else "removed"
    print_result(counts, output, f"{verb} {len(rows)} images of {product_count} products")


@click.command()
@click.option("--encoder", required=True, help="Name, hub id or directory of the encoder to move to.")
@store_options
@setting_option(
    "--max-rejected", default="0", show_default=True, metavar="N|N%", help="Move only if no more are missing."
)
@engine_options
@url_options
@report_options
def reindex(**options: Any) -> None:
    """Move a collection to another encoder, from the images of its rows.

    Searches go on meanwhile, and the version before is kept for `lookalike rollback`. If it is killed, run it again to
    continue.
    """
    typed = ReindexOptions.from_click(options)
    moved, summary = _reindex(typed)
    counts = {**asdict(moved), "stored": summary.stored, "rejected": summary.rejected, "seconds": summary.seconds}
    name = typed.address.collection
    if moved.before == moved.after:
        line = f"{name} is filled by {typed.encoder} already; nothing to do"
    else:
        images = f"{summary.stored} images in {summary.seconds:.1f} s"
        line = f"{name} now points to {moved.after}: {images}; back with: lookalike rollback"
    print_result(counts, typed.report.format, line)


def _reindex(options: ReindexOptions) -> "tuple[ReindexResult, Summary]":
    from lookalike.encode.engine import LazyEngine
    from lookalike.encode.load_engine import load_engine
    from lookalike.ingest.admin.reindex import reindex
    from lookalike.ingest.pipeline.stages import PipelineContext
    from lookalike.ingest.reports.report import Report
    from lookalike.ingest.reports.terminal import progress_bar
    from lookalike.ingest.run_lock import run_lock
    from lookalike.ingest.shutdown import Shutdown

    address = options.address
    only_run = run_lock(address.uri, address.collection, "reindex")
    with open_store(address) as live, _open_versions(address) as versions, Shutdown() as shutdown, only_run:
        engine = load_engine(options.encoder, options.engine)
        context = PipelineContext(
            LazyEngine(lambda: engine),
            pipeline_limits(options.engine, options.urls),
            options.urls.reader(shutdown.token),
            shutdown.token,
        )
        with (
            progress_bar(live.count, shown=options.report.show_progress) as show,
            Report(options.report.file, show) as report,
        ):
            moved = reindex(versions, context, report, options.max_missing)
    return moved, report.summary()


@click.command()
@click.option("--to", metavar="VERSION", help="A version by name.  [default: the one before the live one]")
@store_options
@format_option("table", "json")
def rollback(to: str | None, output: str, **options: Any) -> None:
    """Make the version that was live before live again; a second call undoes the first."""
    address = CollectionAddress.from_click(options)
    with _open_versions(address) as versions:
        before = versions.live.name
        after = versions.require_once_live(to).name if to else versions.get_previous().name
        versions.make_live(after)
    line = f"{address.collection} now points to {after}, in the state in which you left it; ingest again to update it"
    print_result({"before": before, "after": after}, output, line)


@click.command()
@click.option("--drop", metavar="VERSION", multiple=True, help="Delete a version for good; may be repeated.")
@store_options
@format_option("table", "json")
def versions(drop: tuple[str, ...], output: str, **options: Any) -> None:
    """List the versions of a collection, or delete some."""
    with _open_versions(CollectionAddress.from_click(options)) as opened:
        for name in drop:
            opened.drop(name)
        listed = []
        for version in opened.all():
            with opened.open(version.name) as store:
                listed.append({**asdict(version), "encoder": version.fingerprint.encoder, "images": store.count()})
    if output == "json":
        click.echo(json.dumps({"versions": listed}))
        return
    rows = [["live" if v["live"] else "", v["name"], v["encoder"], v["images"], v["made"]] for v in listed]
    print_table(["", "version", "encoder", "images", "made"], rows)


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@store_options
@format_option("table", "json")
def export_rows(file: Path, output: str, **options: Any) -> None:
    """Write a collection to FILE: .parquet with its vectors, for `lookalike import`; .csv or .jsonl without them."""
    from lookalike.ingest.admin.export import export_collection

    with open_store(CollectionAddress.from_click(options)) as store:
        count = export_collection(store, file)
    print_result({"exported": count, "file": str(file)}, output, f"{count} rows in {file}")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@store_options
@format_option("table", "json")
def import_rows(file: Path, output: str, **options: Any) -> None:
    """Write the rows of FILE, made by `lookalike export`, to a collection of the same encoder, or to a new one."""
    from lookalike.ingest.admin.parquet import check_export_file
    from lookalike.ingest.admin.parquet import import_rows as read
    from lookalike.schema.milvus.store import Store

    address = CollectionAddress.from_click(options)
    fingerprint = check_export_file(file)
    with Store.create(address.uri, fingerprint, token=address.token, collection=address.collection) as store:
        count = read(store, file)
    line = f"{count} rows → {address.collection} at {address.uri}"
    print_result({"imported": count, "file": str(file)}, output, line)


def confirm(question: str) -> None:
    """Ask at a terminal; raise BadSettings without one, and click.Abort for a no."""
    if not sys.stdin.isatty():
        raise BadSettings(f"{question} There is no terminal to ask at: add --yes, or --dry-run to count only")
    click.confirm(question, abort=True, err=True)


def open_store(address: CollectionAddress) -> "Store":
    """Open the collection of a command. Raises BadSettings when there is none, StoreUnavailable."""
    from lookalike.schema.milvus.store import Store

    return Store.open(address.uri, token=address.token, collection=address.collection)


def _open_versions(address: CollectionAddress) -> "Versions":
    from lookalike.schema.milvus.versions import Versions

    return Versions(address.uri, token=address.token, collection=address.collection)


def print_result(counts: dict[str, Any], output: str, line: str) -> None:
    """Print the counts as JSON, or the line."""
    click.echo(json.dumps(counts) if output == "json" else line)
