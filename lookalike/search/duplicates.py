"""Images that are nearly the same in different products: a product entered twice, a photo on the wrong one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Hit, Vector

_FIELDS = ("product_id", "image", "metadata")
_TOGETHER = 64
"""Vectors in one search: Milvus is many times faster than with one at a time."""

_WIDTH = 16


Pair = tuple[Row, Row]


@dataclass(frozen=True, slots=True)
class Group:
    """Images of different products that are alike, by product; `score` is the lowest cosine that links them."""

    score: float
    images: list[Hit]


class Links:
    """Disjoint sets of images (union by path halving: Tarjan & van Leeuwen, JACM 1984)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._score: dict[str, float] = {}

    def find(self, key: str) -> str:
        """Name the set of an image."""
        parent = self._parent
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    def join(self, one: str, other: str, score: float) -> None:
        """Put two images into one set."""
        first, second = sorted((self.find(one), self.find(other)))
        self._parent[second] = first
        self._score[first] = min(score, self._score.get(first, 1.0), self._score.get(second, 1.0))

    def joined(self) -> list[str]:
        """All images that are in a set with another."""
        return list(self._parent)

    def score(self, key: str) -> float:
        """The lowest score by which the set of an image was joined."""
        return self._score[self.find(key)]


def find_duplicates(store: Store, threshold: float) -> list[Group]:
    """Group the images of different products whose cosine is at least `threshold`, largest group first.

    Each image is searched for among all others; in memory are keys, no vectors.
    """
    links = Links()
    products: dict[str, str] = {}
    first: dict[str, str] = {}
    rows = store.rows(fields=["product_id", "image_hash", "embedding"])
    while group := list(islice(rows, _TOGETHER)):
        products |= {row["image_id"]: row["product_id"] for row in group}
        for row in group:
            # The same bytes are alike without a search: ten thousand products may have the same placeholder.
            one = first.setdefault(row["image_hash"], row["image_id"])
            if one != row["image_id"]:
                links.join(one, row["image_id"], 1.0)
        searched = [row for row in group if first[row["image_hash"]] == row["image_id"]]
        for row, double in _doubles(store, searched, threshold):
            products[double["image_id"]] = double["product_id"]
            links.join(row["image_id"], double["image_id"], double["score"])
    return _groups(store, links, products)


def _doubles(store: Store, rows: list[Row], threshold: float, width: int = _WIDTH) -> Iterator[Pair]:
    """Pairs of a row and one of another product that is like it; looks wider where all that was found is alike."""
    answers = store.search_many([_vector(row) for row in rows], width, fields=["product_id"]) if rows else []
    wider = []
    for row, hits in zip(rows, answers, strict=True):
        alike = [hit for hit in hits if hit["score"] >= threshold]
        if len(alike) == width < store.window:
            wider.append(row)
            continue
        yield from ((row, hit) for hit in alike if hit["product_id"] != row["product_id"])
    if wider:
        yield from _doubles(store, wider, threshold, min(8 * width, store.window))


def _groups(store: Store, links: Links, products: dict[str, str]) -> list[Group]:
    sets: dict[str, list[str]] = {}
    for image_id in links.joined():
        sets.setdefault(links.find(image_id), []).append(image_id)
    several = {name: ids for name, ids in sets.items() if len({products[image_id] for image_id in ids}) > 1}
    groups = [Group(links.score(name), _hits(store, ids, links.score(name))) for name, ids in several.items()]
    return sorted(groups, key=lambda group: (-len(group.images), -group.score, group.images[0].product_id))


def _hits(store: Store, image_ids: Sequence[str], score: float) -> list[Hit]:
    ordered = sorted(store.get(image_ids, _FIELDS), key=lambda row: (row["product_id"], row["image"]))
    return [Hit(row["product_id"], score, row["image_id"], row["image"], row["metadata"]) for row in ordered]


def _vector(row: Row) -> Vector:
    vector: Vector = np.asarray(row["embedding"], dtype=np.float32)
    return vector
