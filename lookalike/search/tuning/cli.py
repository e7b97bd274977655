"""`lookalike tune`: search no wider than the recall that is wanted needs."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.schema.errors import BadSettings
from lookalike.schema.output import format_option, print_table
from lookalike.schema.settings import store_options

if TYPE_CHECKING:
    from lookalike.schema.milvus.store import Store
    from lookalike.search.tuning.recall import Point

_BUILT_SECONDS = 600.0


@click.command()
@store_options
@click.option("--recall", default=0.99, show_default=True, type=click.FloatRange(0.5, 1), help="Share to be found.")
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1, 1_000), help="Of how many products.")
@click.option("--queries", default=200, show_default=True, type=click.IntRange(10, 5_000), help="Questions to measure.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the curve: .png, .jpg or .webp.")
@click.option("--dry-run", is_flag=True, help="Measure, and keep nothing.")
@format_option("table", "json")
def tune(**options: Any) -> None:
    """Measure how wide a server's graph has to be searched for a recall, and keep that with the collection.

    The collection's own vectors are asked, and the answers compared with an exact search. Milvus Lite compares every
    row, exactly, and has nothing to tune.
    """
    from lookalike.schema.milvus.store import Store

    if options["plot"] is not None and not options["plot"].parent.is_dir():
        raise BadSettings(f"--plot {str(options['plot'])!r}: its folder does not exist")
    with Store.open(options["uri"], token=options["token"], collection=options["collection"]) as store:
        if store.is_exact:
            raise BadSettings("Milvus Lite compares every row, exactly: there is nothing to tune")
        if store.count() == 0:
            raise BadSettings(f"{store.name!r} is empty; fill it first")
        _wait_until_built(store)
        _tune(store, options)


def _tune(store: "Store", options: dict[str, Any]) -> None:
    from lookalike.search.tuning.recall import choose, measure

    before = store.ef
    points = measure(store, options["limit"], options["queries"])
    chosen = choose(points, options["recall"])
    if chosen is not None and not options["dry_run"]:
        store.set_search_ef(chosen.ef)
    if options["plot"] is not None:
        _plot(points, options)
    if options["output"] == "json":
        kept = chosen is not None and not options["dry_run"]
        told = {"points": [asdict(point) for point in points], "chosen": chosen and chosen.ef, "before": before}
        click.echo(json.dumps({**told, "kept": kept}))
        return
    print_table(
        ["ef", "recall", "ms"],
        [[point.ef, point.recall, point.milliseconds] for point in points],
    )
    click.echo(_said(store, chosen, before, options))


def _said(store: "Store", chosen: "Point | None", before: int, options: dict[str, Any]) -> str:
    if chosen is None:
        return f"no ef finds {options['recall']:.2%}; {before} stays. Did the server build its graph to the end?"
    found = f"ef {chosen.ef} finds {chosen.recall:.2%} in {chosen.milliseconds:.1f} ms"
    if options["dry_run"]:
        return f"{found}; nothing was kept, {before} stays"
    return f"{found}: kept with {store.version}, instead of {before}, for searches without a filter"


def _wait_until_built(store: "Store") -> None:
    """A graph that is not built yet is not the one that will be searched."""
    until = time.monotonic() + _BUILT_SECONDS
    if store.is_indexing():
        click.echo("waiting for the server to build its graph …", err=True)
    while store.is_indexing():
        if time.monotonic() > until:
            raise BadSettings("the server is still building its graph; try again later")
        time.sleep(1)


def _plot(points: "list[Point]", options: dict[str, Any]) -> None:
    from lookalike.search.tuning.plot import draw_curve

    path = options["plot"]
    try:
        draw_curve(points, options["recall"], options["collection"]).save(path)
    except (OSError, ValueError) as error:
        raise BadSettings(f"--plot {str(path)!r} cannot be written: {error}") from error
    click.echo(f"curve: {path}", err=True)
