"""From the rows that a search gave to the products of an answer: grouped, cut, combined. Nothing here asks Milvus."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lookalike.schema.product import Hit, Vector

UNLIKE = 0.5
"""How much the mean of what is not liked counts beside the mean of what is."""

Weighted = tuple[float, Vector]


def best_by_product(rows: Iterable[Mapping[str, Any]]) -> list[Hit]:
    """Keep the best image of each product, best product first.

    Of two images with the same score the one with the smaller image_id counts, so that answers do not flicker.
    """
    best: dict[str, Hit] = {}
    for row in sorted(rows, key=lambda row: (-row["score"], row["image_id"])):
        if row["product_id"] not in best:
            hit = Hit(row["product_id"], row["score"], row["image_id"], row["image"], row["metadata"])
            best[hit.product_id] = hit
    return list(best.values())


def cut(hits: Iterable[Hit], min_score: float | None, within: float | None) -> Iterator[Hit]:
    """End at the first product below `min_score`, or more than `within` below the best."""
    least = -2.0 if min_score is None else min_score
    for place, hit in enumerate(hits):
        if place == 0 and within is not None:
            least = max(least, hit.score - within)
        if hit.score < least:
            return
        yield hit


def mean(vectors: Iterable[Vector]) -> Vector:
    """Bring the sum of unit vectors, shape (dim,), back to unit length; they count the same."""
    return _unit(np.stack(list(vectors)).sum(axis=0, dtype=np.float64))


def combine(like: Sequence[Weighted], unlike: Sequence[Weighted]) -> Vector:
    """Combine unit vectors, shape (dim,), each with its weight, to one: towards `like`, away from `unlike`.

    Rocchio, "Relevance feedback in information retrieval" (1971), with 1 and ½.
    """
    total = _average(like)
    if unlike:
        total = total - UNLIKE * _average(unlike)
    return _unit(total)


def _average(weighted: Sequence[Weighted]) -> np.ndarray:
    weights = np.array([weight for weight, _ in weighted], dtype=np.float64)
    average: np.ndarray = weights @ np.stack([vector for _, vector in weighted]) / weights.sum()
    return average


def _unit(total: np.ndarray) -> Vector:
    length = float(np.linalg.norm(total))
    # Opposites cancel out to nothing that could be searched for; any direction is as good as another.
    direction: Vector = (total / length if length > 1e-12 else np.eye(1, total.size)[0]).astype(np.float32)
    return direction
