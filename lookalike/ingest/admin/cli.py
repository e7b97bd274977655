"""The commands that maintain a collection: delete, reindex, rollback, versions, export, import."""

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.encode.options import check_encoder_option, engine_options
from lookalike.ingest.options import ReindexOptions, pipeline_limits, report_options, url_options
from lookalike.schema.errors import BadSettings
from lookalike.schema.filters.parser import parse_filter
from lookalike.schema.output import format_option, print_csv, print_json_lines, print_table
from lookalike.schema.settings import CollectionAddress, setting_option, store_options

if TYPE_CHECKING:
    from lookalike.ingest.admin.reindex import ReindexResult
    from lookalike.ingest.reports.report import Summary
    from lookalike.schema.collection import Fingerprint
    from lookalike.schema.milvus.store import Store
    from lookalike.schema.milvus.versions import Version, Versions

dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


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
@click.option(
    "--encoder",
    required=True,
    callback=check_encoder_option,
    help="Name, hub id or directory of the encoder to move to.",
)
@store_options
@setting_option(
    "--max-rejected", default="0", show_default=True, metavar="N|N%", help="Move only if no more are missing."
)
@dry_run_option
@engine_options
@url_options
@report_options
def reindex(**options: Any) -> None:
    """Move a collection to another encoder, from the images of its rows.

    Searches go on meanwhile, and the version before is kept for `lookalike rollback`. If it is killed, run it again to
    continue. A dry run reads and decodes the images, but encodes none.
    """
    typed = ReindexOptions.from_click(options)
    moved, summary = _reindex(typed)
    counts = {**asdict(moved), "seconds": summary.seconds, "dry_run": typed.is_dry_run}
    print_result(counts, typed.report.format, _describe_reindex(typed, moved, summary.seconds))


def _describe_reindex(options: ReindexOptions, moved: "ReindexResult", seconds: float) -> str:
    name = options.address.collection
    if moved.before == moved.after:
        return f"{name} is filled by {options.encoder} already; nothing to do"
    if options.is_dry_run:
        return (
            f"would encode {moved.stored} images for {moved.after}, without {moved.rejected} that cannot be read, "
            f"and point {name} to it instead of {moved.before}; nothing was changed"
        )
    return (
        f"{name} now points to {moved.after}: {moved.stored} images in {seconds:.1f} s; back with: lookalike rollback"
    )


def _reindex(options: ReindexOptions) -> "tuple[ReindexResult, Summary]":
    from lookalike.encode.engine import LazyEngine
    from lookalike.encode.load_engine import load_engine
    from lookalike.ingest.admin.reindex import dry_run, reindex
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
            move = dry_run if options.is_dry_run else reindex
            moved = move(versions, context, report, options.max_missing)
    return moved, report.summary()


@click.command()
@click.option("--to", metavar="VERSION", help="A version by name.  [default: the one before the live one]")
@dry_run_option
@store_options
@format_option("table", "json")
def rollback(to: str | None, output: str, dry_run: bool, **options: Any) -> None:
    """Make the version that was live before live again; a second call undoes the first."""
    address = CollectionAddress.from_click(options)
    with _open_versions(address) as versions:
        before = versions.live.name
        after = versions.require_once_live(to).name if to else versions.get_previous().name
        if not dry_run:
            versions.make_live(after)
    line = f"{address.collection} now points to {after}, in the state in which you left it; ingest again to update it"
    if dry_run:
        line = f"{address.collection} would point to {after} instead of {before}; nothing was changed"
    print_result({"before": before, "after": after, "dry_run": dry_run}, output, line)


@click.command()
@click.option("--drop", metavar="VERSION", multiple=True, help="Delete a version for good; may be repeated.")
@dry_run_option
@store_options
@format_option("table", "json", "jsonl", "csv")
def versions(drop: tuple[str, ...], output: str, dry_run: bool, **options: Any) -> None:
    """List the versions of a collection, or delete some: all that are named, or none."""
    with _open_versions(CollectionAddress.from_click(options)) as opened:
        names = list(dict.fromkeys(drop))
        for name in names:
            opened.require_droppable(name)
        for name in names if not dry_run else ():
            opened.drop(name)
        listed = [_describe_version(opened, version) for version in opened.all()]
    if output == "json":
        click.echo(json.dumps({"versions": listed, "dropped": names, "dry_run": dry_run}))
    elif output == "jsonl":
        print_json_lines(listed)
    else:
        _print_versions(listed, output)
    for name in names:
        click.echo(f"would drop {name}; nothing was changed" if dry_run else f"dropped {name}", err=True)


def _describe_version(versions: "Versions", version: "Version") -> dict[str, Any]:
    with versions.open(version.name) as store:
        return {**asdict(version), "encoder": version.fingerprint.encoder, "images": store.count()}


def _print_versions(listed: list[dict[str, Any]], output: str) -> None:
    columns = ("name", "encoder", "images", "made")
    if output == "csv":
        print_csv(["live", *columns], [[version[column] for column in ("live", *columns)] for version in listed])
        return
    rows = [["live" if version["live"] else "", *(version[column] for column in columns)] for version in listed]
    print_table(["", "version", *columns[1:]], rows)


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
@dry_run_option
@store_options
@format_option("table", "json")
def import_rows(file: Path, output: str, dry_run: bool, **options: Any) -> None:
    """Write the rows of FILE, made by `lookalike export`, to a collection of the same encoder, or to a new one."""
    from lookalike.ingest.admin.parquet import check_export_file
    from lookalike.ingest.admin.parquet import import_rows as read
    from lookalike.schema.milvus.store import Store

    address = CollectionAddress.from_click(options)
    fingerprint = check_export_file(file)
    if dry_run:
        _plan_import(address, file, fingerprint, output)
        return
    with Store.create(address.uri, fingerprint, token=address.token, collection=address.collection) as store:
        count = read(store, file)
    line = f"{count} rows → {address.collection} at {address.uri}"
    print_result({"imported": count, "file": str(file), "dry_run": False}, output, line)


def _plan_import(address: CollectionAddress, file: Path, fingerprint: "Fingerprint", output: str) -> None:
    """Print what an import would do. Raises what it would raise."""
    from lookalike.ingest.admin.parquet import count_rows
    from lookalike.schema.collection import require_same_encoder
    from lookalike.schema.milvus.store import Store

    with Store.find(address.uri, token=address.token, collection=address.collection) or nullcontext() as store:
        if store is not None and store.count():
            require_same_encoder(store.name, store.fingerprint, fingerprint)
        count, replaced = count_rows(store, file)
    kind = f"{replaced} of them in place of existing ones" if store is not None else "a new collection"
    line = f"would write {count} rows → {address.collection} at {address.uri}, {kind}; nothing was changed"
    counts = {"imported": count, "replaced": replaced, "file": str(file), "dry_run": True}
    print_result(counts, output, line)


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
