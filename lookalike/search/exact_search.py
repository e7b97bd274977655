"""Exact search: read every row that matches, and compute its score here instead of in Milvus."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Hit, HitImage, Vector
from lookalike.search.resolved_query import ResolvedQuery

MAX_COMPARED_ROWS = 5_000
"""Up to so many rows are compared one by one, where a search by Milvus could miss some of them."""

HIT_FIELDS = ("product_id", "image", "metadata")
"""The fields that a hit needs of a row, besides its key and its score."""


def compare_rows(store: Store, where: str, vector: Vector) -> Iterator[Row]:
    """Yield every row that matches `where`, in no order, with its cosine to `vector` as `score`."""
    for row in store.rows(where=where, fields=[*HIT_FIELDS, "embedding"], consistency="Session"):
        yield {**row, "embedding": None, "score": _cosine(row, vector)}


def add_best_images(store: Store, query: ResolvedQuery, hits: Sequence[Hit]) -> list[Hit]:
    """Add to each hit the `per_product` best images of its product that match the filter."""
    if not hits:
        return []
    where = join_conditions(query.where, column_in("product_id", [hit.product_id for hit in hits]))
    best: dict[str, list[HitImage]] = {hit.product_id: [] for hit in hits}
    for row in store.rows(where=where, fields=["product_id", "image", "embedding"], consistency="Session"):
        images = best[row["product_id"]]
        images.append(HitImage(row["image_id"], _cosine(row, query.vector), row["image"]))
        images.sort(key=lambda image: (-image.score, image.image_id))
        del images[query.query.per_product :]
    return [replace(hit, images=tuple(best[hit.product_id])) for hit in hits]


def exclude_products(where: str, product_ids: Collection[str]) -> str:
    """Narrow a filter expression to other products than these."""
    others = f"not ({column_in('product_id', sorted(product_ids))})" if product_ids else ""
    return join_conditions(where, others)


def join_conditions(*conditions: str) -> str:
    """Join filter expressions with `and`; an empty one matches everything."""
    return " and ".join(condition for condition in conditions if condition)


def _cosine(row: Row, vector: Vector) -> float:
    return float(np.dot(np.asarray(row["embedding"], dtype=np.float32), vector))
