"""From the rows that a search gave to the products of an answer."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from schema.product import Hit, Vector


def best_by_product(rows: Iterable[Mapping[str, Any]], min_score: float | None) -> dict[str, Hit]:
    """Keep the best picture of each product, best product first; drop scores below `min_score`.

    Of two pictures with the same score the one with the smaller image_id counts, so that answers do not flicker.
    """
    best: dict[str, Hit] = {}
    for row in sorted(rows, key=lambda row: (-row["score"], row["image_id"])):
        if min_score is None or row["score"] >= min_score:
            hit = Hit(row["product_id"], row["score"], row["image"], row["metadata"])
            best.setdefault(hit.product_id, hit)
    return best


def combine(vectors: Iterable[Vector]) -> Vector:
    """Add unit vectors, shape (dim,), and bring the sum back to unit length; they count the same."""
    total = np.stack(list(vectors)).sum(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(total))
    # Opposites cancel out to nothing that could be searched for; any direction is as good as another.
    direction: Vector = (total / length if length > 1e-12 else np.eye(1, total.size)[0]).astype(np.float32)
    return direction
