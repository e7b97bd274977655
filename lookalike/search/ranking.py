"""Which products a result has, in which order: pure functions, no I/O.

To add a ranking rule, write a generator here that takes the products nearest first and yields those to return, and
call it in `rank_products`. `Finder` calls `rank_products` once for each query. Yield as you go: the products come from
a search that grows wider as more of them are read, so a rule that reads all of them searches the whole collection.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lookalike.schema.product import Hit
from lookalike.search.query import Query


def group_by_product(rows: Iterable[Mapping[str, Any]]) -> list[Hit]:
    """Return one hit for each product, its best image, best product first.

    Of two images with the same score the one with the smaller image_id is taken, so that results are reproducible.
    """
    best: dict[str, Hit] = {}
    for row in sorted(rows, key=lambda row: (-row["score"], row["image_id"])):
        if row["product_id"] not in best:
            hit = Hit(row["product_id"], row["score"], row["image_id"], row["image"], row["metadata"])
            best[hit.product_id] = hit
    return list(best.values())


def rank_products(products: Iterable[Hit], query: Query) -> Iterator[Hit]:
    """Apply the ranking rules of a query to the products that match it, nearest first."""
    return cut_off_scores(products, query.min_score, query.within)


def cut_off_scores(products: Iterable[Hit], min_score: float | None, within: float | None) -> Iterator[Hit]:
    """Stop at the first product that scores below `min_score`, or more than `within` below the best one."""
    lowest = -2.0 if min_score is None else min_score
    for rank, hit in enumerate(products):
        if rank == 0 and within is not None:
            lowest = max(lowest, hit.score - within)
        if hit.score < lowest:
            return
        yield hit
