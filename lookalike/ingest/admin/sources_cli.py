"""`lookalike sources`: list the sources of a collection, rename one, remove one."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from lookalike.ingest.admin.cli import confirm, open_store, print_result
from lookalike.schema.errors import BadSettings
from lookalike.schema.output import escape_controls, format_option, print_table
from lookalike.schema.settings import CollectionAddress, store_options

if TYPE_CHECKING:
    from lookalike.schema.milvus.store import Store


@click.command()
@click.option("--rename", nargs=2, metavar="OLD NEW", help="Give a source another name; its rows keep their vectors.")
@click.option("--remove", metavar="SOURCE", help="Delete all rows of a source.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="With --rename or --remove: only count.")
@click.option("--yes", "is_confirmed", is_flag=True, help="With --remove: do not ask for confirmation.")
@store_options
@format_option("table", "json")
def sources(rename: tuple[str, str] | None, remove: str | None, output: str, **options: Any) -> None:
    """List the sources of a collection, rename one, or remove one with all of its rows.

    Each row belongs to a source: the full path of a folder or manifest, or its --source-name.
    """
    _check_options(rename, remove, options)
    with open_store(CollectionAddress.from_click(options)) as store:
        if rename is not None:
            _rename(store, *rename, output, is_dry_run=options["is_dry_run"])
        elif remove is not None:
            _remove(store, remove, output, options)
        else:
            _list(store, output)


def _check_options(rename: tuple[str, str] | None, remove: str | None, options: dict[str, Any]) -> None:
    if rename is not None and remove is not None:
        raise BadSettings("--rename and --remove are two commands; give one of them")
    if options["is_dry_run"] and rename is None and remove is None:
        raise BadSettings("--dry-run is for --rename or --remove; listing the sources changes nothing")
    if options["is_confirmed"] and remove is None:
        raise BadSettings("--yes is for --remove; nothing else asks")


def _list(store: "Store", output: str) -> None:
    from lookalike.ingest.admin.sources import list_sources

    listed = list_sources(store)
    if output == "json":
        click.echo(json.dumps({"sources": [asdict(source) for source in listed]}))
    else:
        rows = [[source.source, source.images, source.products] for source in listed]
        print_table(["source", "images", "products"], rows)


def _rename(store: "Store", old: str, new: str, output: str, *, is_dry_run: bool) -> None:
    from lookalike.ingest.admin.sources import rename_source

    renamed = rename_source(store, old, new, dry_run=is_dry_run)
    counts = {"renamed": renamed.images, "products": renamed.products, "dry_run": is_dry_run}
    verb = "would rename" if is_dry_run else "renamed"
    line = f"{verb} {escape_controls(old)} to {escape_controls(new)}: {renamed.images} images"
    print_result(counts, output, f"{line} of {renamed.products} products")


def _remove(store: "Store", source: str, output: str, options: dict[str, Any]) -> None:
    from lookalike.ingest.admin.sources import remove_source

    is_dry_run = options["is_dry_run"]
    removed = remove_source(store, source, dry_run=True)
    if not is_dry_run:
        if not options["is_confirmed"]:
            confirm(f"Delete {removed.images} images of {removed.products} products, all of {source!r}?")
        removed = remove_source(store, source)
    counts = {"removed": removed.images, "products": removed.products, "dry_run": is_dry_run}
    verb = "would remove" if is_dry_run else "removed"
    print_result(counts, output, f"{verb} {removed.images} images of {removed.products} products")
