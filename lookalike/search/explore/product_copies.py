"""Images that are nearly the same within one product: a photo that was uploaded twice, or a source ingested twice."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.search.explore.duplicates import Group, Links, make_groups

_BATCH = 1_000
"""Images whose vectors are in memory at once; more only for a product that has more."""

_BLOCK = 1_000
"""Images that are compared with all others of their product at once."""


def find_copies(store: Store, threshold: float) -> list[Group]:
    """Group the images of each product whose cosine is at least `threshold`, largest group first.

    Compares all images of a product with each other, exactly.
    """
    images: defaultdict[str, list[str]] = defaultdict(list)
    for row in store.rows(fields=["product_id"]):
        images[row["product_id"]].append(row["image_id"])
    links = Links()
    for rows in _read_products(store, [image_ids for image_ids in images.values() if len(image_ids) > 1]):
        _link_copies(links, rows, threshold)
    return make_groups(store, [image_ids for image_ids in links.sets().values() if len(image_ids) > 1], links)


def _read_products(store: Store, products: Sequence[Sequence[str]]) -> Iterator[list[Row]]:
    """Read the images of each product, several products in a query."""
    batch: list[str] = []
    for number, image_ids in enumerate(products, 1):
        batch += image_ids
        if len(batch) >= _BATCH or number == len(products):
            by_product: defaultdict[str, list[Row]] = defaultdict(list)
            for row in store.get(batch, ["product_id", "image_hash", "embedding"]):
                by_product[row["product_id"]].append(row)
            yield from by_product.values()
            batch = []


def _link_copies(links: Links, rows: Sequence[Row], threshold: float) -> None:
    """Link the images of one product that are copies of each other; equal bytes are, whatever rounding says."""
    first_with_hash: dict[str, str] = {}
    for row in rows:
        first = first_with_hash.setdefault(row["image_hash"], row["image_id"])
        if first != row["image_id"]:
            links.join(first, row["image_id"], 1.0)
    distinct = [row["image_id"] for row in rows if first_with_hash[row["image_hash"]] == row["image_id"]]
    vectors = {row["image_id"]: row["embedding"] for row in rows}
    matrix = np.asarray([vectors[image_id] for image_id in distinct], dtype=np.float32)
    for one, other, score in _find_pairs(matrix, threshold):
        links.join(distinct[one], distinct[other], score)


def _find_pairs(vectors: npt.NDArray[np.float32], threshold: float) -> Iterator[tuple[int, int, float]]:
    """Yield the pairs of unit vectors (n, dim) whose cosine is at least `threshold`, with it."""
    for start in range(0, len(vectors), _BLOCK):
        scores = vectors[start : start + _BLOCK] @ vectors.T
        for one, other in np.argwhere(scores >= threshold):
            if start + one < other:
                yield int(start + one), int(other), min(1.0, float(scores[one, other]))
