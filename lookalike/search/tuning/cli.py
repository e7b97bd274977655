"""`lookalike tune`: choose the smallest `ef` that reaches a recall."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.schema.errors import BadSettings
from lookalike.schema.output import format_option, print_table
from lookalike.schema.settings import store_options
from lookalike.search.options import CollectionOptions

if TYPE_CHECKING:
    from lookalike.schema.milvus.store import Store
    from lookalike.search.tuning.recall import Point

_BUILD_TIMEOUT = 600.0
"""Seconds to wait for the server to build its graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions(CollectionOptions):
    """The options of `lookalike tune`, as on the command line."""

    recall: float
    limit: int
    queries: int
    plot: Path | None
    dry_run: bool
    output: str


@click.command()
@store_options
@click.option(
    "--recall",
    default=0.99,
    show_default=True,
    type=click.FloatRange(0.5, 1),
    help="The share of the nearest products that a search has to find.",
)
@click.option(
    "--limit",
    "-k",
    "-n",
    default=10,
    show_default=True,
    type=click.IntRange(1, 1_000),
    help="How many products a search finds.",
)
@click.option(
    "--queries", default=200, show_default=True, type=click.IntRange(10, 5_000), help="How many searches to measure."
)
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the curve: .png, .jpg or .webp.")
@click.option("--dry-run", is_flag=True, help="Measure only; change nothing.")
@format_option("table", "json")
def tune(**values: Any) -> None:
    """Measure how widely a server's graph has to be searched for a recall, and store that with the collection.

    Searches with vectors of the collection itself, and compares the results with those of an exact search. Milvus Lite
    compares every row, exactly, and has nothing to tune.
    """
    options = TuneOptions(**values)
    if options.plot is not None and not options.plot.parent.is_dir():
        raise BadSettings(f"--plot {str(options.plot)!r}: its folder does not exist")
    with options.open_store() as store:
        if store.is_exact:
            raise BadSettings("Milvus Lite compares every row, exactly: there is nothing to tune")
        if store.count() == 0:
            raise BadSettings(f"{store.name!r} is empty; fill it first")
        _wait_until_built(store)
        _tune(store, options)


def _tune(store: "Store", options: TuneOptions) -> None:
    from lookalike.search.tuning.recall import choose_point, measure_recall

    before = store.ef
    points = measure_recall(store, options.limit, options.queries)
    chosen = choose_point(points, options.recall)
    stored = None if options.dry_run else chosen
    if stored is not None:
        store.set_search_ef(stored.ef)
    if options.plot is not None:
        _plot(points, options.plot, options)
    if options.output == "json":
        outcome = {"chosen": chosen and chosen.ef, "before": before, "kept": stored is not None}
        click.echo(json.dumps({"points": [asdict(point) for point in points], **outcome}))
        return
    print_table(["ef", "recall", "ms"], [[point.ef, point.recall, point.milliseconds] for point in points])
    click.echo(_describe_outcome(store, chosen, before, options))


def _describe_outcome(store: "Store", chosen: "Point | None", before: int, options: TuneOptions) -> str:
    if chosen is None:
        return f"no ef reaches {options.recall:.2%}; ef stays {before}. Has the server finished building its graph?"
    measured = f"ef {chosen.ef} finds {chosen.recall:.2%} in {chosen.milliseconds:.1f} ms"
    if options.dry_run:
        return f"{measured}; dry run, ef stays {before}"
    return f"{measured}: stored with {store.version}, instead of {before}, for searches without a filter"


def _wait_until_built(store: "Store") -> None:
    """Wait until the server searches its final graph; before, the recall is that of another one."""
    give_up = time.monotonic() + _BUILD_TIMEOUT
    if store.is_indexing():
        click.echo("waiting for the server to build its graph …", err=True)
    while store.is_indexing():
        if time.monotonic() > give_up:
            raise BadSettings("the server is still building its graph; try again later")
        time.sleep(1)


def _plot(points: "list[Point]", path: Path, options: TuneOptions) -> None:
    from lookalike.search.tuning.plot import draw_curve

    try:
        draw_curve(points, options.recall, options.collection).save(path)
    except (OSError, ValueError) as error:
        raise BadSettings(f"--plot {str(path)!r} cannot be written: {error}") from error
    click.echo(f"curve: {path}", err=True)
