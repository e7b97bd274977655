"""Print hits and groups of duplicates: a table, ids, JSON, JSON lines or CSV."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.schema.output import escape_controls, print_csv, print_json_lines, print_table

if TYPE_CHECKING:
    from lookalike.schema.product import Hit
    from lookalike.search.explore.duplicates import Group
    from lookalike.search.finder import SearchResult

_HIT_COLUMNS = ("product_id", "score", "image_id", "image")


def print_result(result: "SearchResult", output: str) -> None:
    """Print the result of a search."""
    records = map(_hit_as_json, result.hits)
    if output == "json":
        click.echo(json.dumps({**asdict(result), "hits": list(records)}))
    elif output == "jsonl":
        print_json_lines(records)
    elif output == "csv":
        _print_csv([], [((), hit) for hit in result.hits])
    elif output == "ids":
        for hit in result.hits:
            click.echo(escape_controls(hit.product_id))
    else:
        _print_hits(result)


def print_groups(groups: "Sequence[Group]", threshold: float, output: str) -> None:
    """Print groups of duplicates."""
    if output == "json":
        click.echo(json.dumps({"threshold": threshold, "groups": [asdict(group) for group in groups]}))
    elif output == "jsonl":
        print_json_lines({"group": number, **_hit_as_json(hit)} for number, hit in _list_images(groups))
    elif output == "csv":
        _print_csv(["group"], [((number,), hit) for number, hit in _list_images(groups)])
    else:
        rows = [[number, hit.product_id, hit.score, _short_path(hit.image)] for number, hit in _list_images(groups)]
        print_table(["group", "product_id", "score", "image"], rows)
        click.echo(f"{len(groups)} groups of images alike, at {threshold} or more")


def _print_hits(result: "SearchResult") -> None:
    columns = sorted({name for hit in result.hits for name in hit.metadata})
    rows = [
        [rank, hit.product_id, hit.score, *(hit.metadata.get(name, "") for name in columns), _short_path(hit.image)]
        for rank, hit in enumerate(result.hits, 1)
    ]
    print_table(["", "product_id", "score", *columns, "image"], rows)
    click.echo(f"{len(result.hits)} products in {result.took_ms:.1f} ms")


def _print_csv(columns: Sequence[str], rows: "Sequence[tuple[Sequence[Any], Hit]]") -> None:
    """Print a line for each hit: the values of `columns`, the hit, a column for each metadata field of any hit.

    A field with the name of another column becomes `metadata.NAME`, as in the tables of the Python API.
    """
    names = sorted({name for _, hit in rows for name in hit.metadata})
    fixed = [*columns, *_HIT_COLUMNS]
    header = [*fixed, *(f"metadata.{name}" if name in fixed else name for name in names)]
    print_csv(
        header,
        [
            [*first, *(getattr(hit, name) for name in _HIT_COLUMNS), *(hit.metadata.get(name) for name in names)]
            for first, hit in rows
        ],
    )


def _list_images(groups: "Sequence[Group]") -> "Iterator[tuple[int, Hit]]":
    """List each image of each group, with the number of its group."""
    return ((number, hit) for number, group in enumerate(groups, 1) for hit in group.images)


def _hit_as_json(hit: "Hit") -> dict[str, Any]:
    return {name: value for name, value in asdict(hit).items() if name != "images"}


def _short_path(image: str) -> str:
    """Shorten a path below the working directory to a relative one: easier to read, and to copy."""
    return image.removeprefix(f"{Path.cwd()}/")
