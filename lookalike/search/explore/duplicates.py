"""Images that are nearly the same in different products: a product entered twice, or a photo on the wrong product."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Hit, Vector

_FIELDS = ("product_id", "image", "metadata")
_BATCH = 64
"""Vectors in one search: several times as fast as one at a time."""

_FIRST_LIMIT = 16
_GROWTH = 8

Pair = tuple[Row, Row]


@dataclass(frozen=True, slots=True)
class Group:
    """Near-duplicate images, by product; `score` is the lowest cosine that links them."""

    score: float
    images: list[Hit]


class Links:
    """Disjoint sets of images (union by path halving: Tarjan & van Leeuwen, JACM 1984)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._score: dict[str, float] = {}

    def find(self, image_id: str) -> str:
        """Return the image that represents the set of an image."""
        parent = self._parent
        parent.setdefault(image_id, image_id)
        while parent[image_id] != image_id:
            parent[image_id] = parent[parent[image_id]]
            image_id = parent[image_id]
        return image_id

    def join(self, one: str, other: str, score: float) -> None:
        """Merge the sets of two images."""
        first, second = sorted((self.find(one), self.find(other)))
        self._parent[second] = first
        self._score[first] = min(score, self._score.get(first, 1.0), self._score.get(second, 1.0))

    def sets(self) -> dict[str, list[str]]:
        """Return the images of each set, by the image that represents it."""
        sets: dict[str, list[str]] = {}
        for image_id in list(self._parent):
            sets.setdefault(self.find(image_id), []).append(image_id)
        return sets

    def score(self, image_id: str) -> float:
        """Return the lowest score by which the set of an image was joined."""
        return self._score[self.find(image_id)]


def find_duplicates(store: Store, threshold: float) -> list[Group]:
    """Group the images of different products whose cosine is at least `threshold`, largest group first.

    Searches for each image among all others. Holds the keys of the images in memory, not their vectors.
    """
    links = Links()
    products: dict[str, str] = {}
    first_with_hash: dict[str, str] = {}
    rows = store.rows(fields=["product_id", "image_hash", "embedding"])
    while batch := list(islice(rows, _BATCH)):
        products |= {row["image_id"]: row["product_id"] for row in batch}
        for row in batch:
            # Equal bytes need no search: ten thousand products may share one placeholder image.
            first = first_with_hash.setdefault(row["image_hash"], row["image_id"])
            if first != row["image_id"]:
                links.join(first, row["image_id"], 1.0)
        distinct = [row for row in batch if first_with_hash[row["image_hash"]] == row["image_id"]]
        for row, duplicate in _find_pairs(store, distinct, threshold):
            products[duplicate["image_id"]] = duplicate["product_id"]
            links.join(row["image_id"], duplicate["image_id"], duplicate["score"])
    sets = links.sets().values()
    return make_groups(store, [keys for keys in sets if len({products[key] for key in keys}) > 1], links)


def _find_pairs(store: Store, rows: Sequence[Row], threshold: float, limit: int = _FIRST_LIMIT) -> Iterator[Pair]:
    """Yield pairs of a row and a near duplicate of another product.

    Where all rows that a search returned are near duplicates, there may be more: searches again with a larger limit.
    """
    results = store.search_many([_embedding(row) for row in rows], limit, fields=["product_id"]) if rows else []
    unfinished = []
    for row, hits in zip(rows, results, strict=True):
        near = [hit for hit in hits if hit["score"] >= threshold]
        if len(near) == limit < store.window:
            unfinished.append(row)
            continue
        yield from ((row, hit) for hit in near if hit["product_id"] != row["product_id"])
    if unfinished:
        yield from _find_pairs(store, unfinished, threshold, min(_GROWTH * limit, store.window))


def make_groups(store: Store, sets: Iterable[Sequence[str]], links: Links) -> list[Group]:
    """Read the images of each set; return a group of each, largest first."""
    scores = [(links.score(image_ids[0]), image_ids) for image_ids in sets]
    groups = [Group(score, _read_hits(store, image_ids, score)) for score, image_ids in scores]
    return sorted(groups, key=lambda group: (-len(group.images), -group.score, group.images[0].product_id))


def _read_hits(store: Store, image_ids: Sequence[str], score: float) -> list[Hit]:
    rows = sorted(store.get(image_ids, _FIELDS), key=lambda row: (row["product_id"], row["image"]))
    return [Hit(row["product_id"], score, row["image_id"], row["image"], row["metadata"]) for row in rows]


def _embedding(row: Row) -> Vector:
    vector: Vector = np.asarray(row["embedding"], dtype=np.float32)
    return vector
