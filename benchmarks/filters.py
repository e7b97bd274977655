"""Recall and latency under filters of every selectivity, against exact search by numpy.

python benchmarks/filters.py --rows 20000
python benchmarks/filters.py --rows 20000 --uri http://localhost:19530
"""

import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

_LIMIT = 10


@click.command()
@click.option("--rows", default=20_000, show_default=True, help="Images; a product has two on average.")
@click.option("--queries", default=100, show_default=True, help="Questions for each filter.")
@click.option("--uri", help="A Milvus server.  [default: Milvus Lite in a temporary folder]")
def main(rows: int, queries: int, uri: str | None) -> None:
    """Print recall@10 by product, and the median milliseconds, for filters that keep 100 % to 0.1 % of the rows."""
    from benchmarks.drawn import DIM, Catalogue
    from lookalike.schema.filters.parser import parse_filter
    from lookalike.search.finder import Finder
    from lookalike.search.query import Query

    catalogue = Catalogue(rows)
    asked = catalogue.near(queries)
    with tempfile.TemporaryDirectory() as folder:
        store = catalogue.fill(uri or f"{folder}/filters.db")
        finder = Finder(store, lambda: sys.exit("no encoder is needed"))
        kind = "Milvus Lite" if store.is_exact else "server"
        click.echo(f"{rows} images, {len(set(catalogue.products))} products, {DIM}-d, {kind}")
        click.echo("  kept   products  recall@10  answered  median ms")
        for kept in (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001):
            where = parse_filter([f"chance < {kept}"])
            inside = catalogue.chance < kept
            found, answered, took = 0.0, 0, []
            for vector in asked:
                truth = catalogue.products_near(vector, _LIMIT, inside)
                started = time.perf_counter()
                hits = finder.find(Query(vector=vector.tolist(), where=where, limit=_LIMIT)).hits
                took.append(time.perf_counter() - started)
                found += len(truth & {hit.product_id for hit in hits}) / max(1, len(truth))
                answered += len(hits) == len(truth)
            matching = len({product for product, inner in zip(catalogue.products, inside, strict=True) if inner})
            click.echo(
                f"{kept:7.1%} {matching:9d} {found / queries:10.4f} {answered / queries:9.0%} "
                f"{np.median(took) * 1_000:10.1f}"
            )
        store.close()


if __name__ == "__main__":
    main()
