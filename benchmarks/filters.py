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

_DIM = 512
_LIMIT = 10


@click.command()
@click.option("--rows", default=20_000, show_default=True, help="Pictures; a product has two on average.")
@click.option("--queries", default=100, show_default=True, help="Questions for each filter.")
@click.option("--uri", help="A Milvus server.  [default: Milvus Lite in a temporary folder]")
def main(rows: int, queries: int, uri: str | None) -> None:
    """Print recall@10 by product, and the median milliseconds, for filters that keep 100 % to 0.1 % of the rows."""
    from schema.filter_words import parse
    from search.finder import Finder
    from search.query import Query

    vectors, products, chance = _catalogue(rows)
    asked = _near(vectors, queries)
    with tempfile.TemporaryDirectory() as folder:
        store = _filled(uri or f"{folder}/filters.db", vectors, products, chance)
        finder = Finder(store, lambda: sys.exit("no encoder is needed"))
        click.echo(
            f"{rows} pictures, {len(set(products))} products, {_DIM}-d, {'Milvus Lite' if store.exact else 'server'}"
        )
        click.echo("  kept   products  recall@10  answered  median ms")
        for kept in (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001):
            where = parse([f"chance < {kept}"])
            inside = chance < kept
            found, answered, took = 0.0, 0, []
            for vector in asked:
                truth = _exact(vectors, products, inside, vector)
                started = time.perf_counter()
                hits = finder.find(Query(vector=vector.tolist(), where=where, limit=_LIMIT)).hits
                took.append(time.perf_counter() - started)
                found += len(truth & {hit.product_id for hit in hits}) / max(1, len(truth))
                answered += len(hits) == len(truth)
            matching = len({product for product, inner in zip(products, inside, strict=True) if inner})
            click.echo(
                f"{kept:7.1%} {matching:9d} {found / queries:10.4f} {answered / queries:9.0%} "
                f"{np.median(took) * 1_000:10.1f}"
            )
        store.close()


def _catalogue(rows: int) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Clustered unit vectors, as products come: kinds of goods, and photos of one product near each other."""
    random = np.random.default_rng(7)
    kinds = random.normal(size=(rows // 100, _DIM))
    count = rows // 2
    centres = kinds[random.integers(0, len(kinds), count)] + 0.7 * random.normal(size=(count, _DIM))
    owners = np.concatenate([np.arange(count), random.integers(0, count, rows - count)])
    vectors = centres[owners] + 0.4 * random.normal(size=(rows, _DIM))
    # By product: a shop filters products, not photos.
    chance = random.random(count)[owners]
    return _unit(vectors), [f"p{owner}" for owner in owners], chance


def _near(vectors: np.ndarray, queries: int) -> np.ndarray:
    random = np.random.default_rng(8)
    chosen = vectors[random.choice(len(vectors), queries, replace=False)]
    return _unit(chosen + 0.02 * random.normal(size=chosen.shape))


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _filled(uri: str, vectors: np.ndarray, products: list[str], chance: np.ndarray):  # type: ignore[no-untyped-def]
    from schema.collection import Fingerprint
    from schema.product import FileState, ImageRow, ProductImage
    from schema.store import Store

    store = Store.create(uri, Fingerprint("bench", "none", _DIM, "none", "none"), collection=f"filters_{len(vectors)}")
    if store.count() != len(vectors):
        rows = (
            ImageRow.of(
                ProductImage.named("bench", product, str(n), f"{n}.jpg", {"chance": float(chance[n])}),
                FileState(str(n), 1, 1),
                vectors[n],
            )
            for n, product in enumerate(products)
        )
        store.upsert(rows)
        store.flush()
    return store


def _exact(vectors: np.ndarray, products: list[str], inside: np.ndarray, asked: np.ndarray) -> set[str]:
    scores = np.where(inside, vectors @ asked, -2)
    best: dict[str, float] = {}
    for n in np.argsort(-scores)[: 20 * _LIMIT]:
        if scores[n] > -2 and len(best) < _LIMIT:
            best.setdefault(products[n], scores[n])
    return set(best)


if __name__ == "__main__":
    main()
