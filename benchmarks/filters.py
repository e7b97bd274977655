"""Recall and latency of filtered searches at several selectivities, against exact search in numpy.

python benchmarks/filters.py --rows 20000
python benchmarks/filters.py --rows 20000 --uri http://localhost:19530
"""

import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

# Import from this checkout; this folder itself holds an `ingest.py` and a `search.py`.
sys.path[0] = str(Path(__file__).parents[1])

_LIMIT = 10


@click.command()
@click.option("--rows", default=20_000, show_default=True, help="Number of images; on average two per product.")
@click.option("--queries", default=100, show_default=True, help="Queries for each filter.")
@click.option("--uri", help="A Milvus server.  [default: Milvus Lite in a temporary folder]")
def main(rows: int, queries: int, uri: str | None) -> None:
    """Print recall@10 by product and the median milliseconds, for filters that match 100 % to 0.1 % of the rows."""
    from benchmarks.synthetic import DIM, Catalogue
    from lookalike.schema.filters.parser import parse_filter
    from lookalike.search.finder import Finder
    from lookalike.search.query import Query

    catalogue = Catalogue(rows)
    vectors = catalogue.make_queries(queries)
    with tempfile.TemporaryDirectory() as folder:
        store = catalogue.fill(uri or f"{folder}/filters.db")
        finder = Finder(store, lambda: sys.exit("this benchmark needs no encoder"))
        kind = "Milvus Lite" if store.is_exact else "server"
        click.echo(f"{rows} images, {len(set(catalogue.products))} products, {DIM}-d, {kind}")
        click.echo("matching products  recall@10  complete  median ms")
        for selectivity in (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001):
            where = parse_filter([f"chance < {selectivity}"])
            mask = catalogue.chance < selectivity
            recall, complete, seconds = 0.0, 0, []
            for vector in vectors:
                expected = catalogue.nearest_products(vector, _LIMIT, mask)
                started = time.perf_counter()
                hits = finder.find(Query(vector=vector.tolist(), where=where, limit=_LIMIT)).hits
                seconds.append(time.perf_counter() - started)
                recall += len(expected & {hit.product_id for hit in hits}) / max(1, len(expected))
                complete += len(hits) == len(expected)
            matching = len({product for product, matches in zip(catalogue.products, mask, strict=True) if matches})
            click.echo(
                f"{selectivity:8.1%} {matching:8d} {recall / queries:10.4f} {complete / queries:9.0%} "
                f"{np.median(seconds) * 1_000:10.1f}"
            )
        store.close()


if __name__ == "__main__":
    main()
