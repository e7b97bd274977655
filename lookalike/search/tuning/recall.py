"""How much of the exact answer a server's graph finds, and how fast, by how wide it searches (`ef`)."""

import secrets
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Vectors

STEPS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024, 1_536, 2_048, 3_072, 4_096)
WIDE = 4
"""How many rows a search asks for, for each product that is wanted; as search.finder does."""

_ENOUGH = 0.9995
_CHUNK = 8_192
_SAME_SCORE = 1e-6


@dataclass(frozen=True, slots=True)
class Point:
    """Recall of the nearest rows, 0 to 1, and the median milliseconds of one search at a time, with an `ef`."""

    ef: int
    recall: float
    milliseconds: float


def measure(store: Store, limit: int, queries: int) -> list[Point]:
    """Search for `limit` rows with vectors of the collection's own, from narrow to wide until nearly all are found.

    What counts as found are rows as near as those of an exact search.
    """
    vectors = _sample(store, queries)
    least = _exact(store, vectors, limit)
    points: list[Point] = []
    wide = min(WIDE * limit, store.window)
    before = store.ef
    try:
        for store.ef in dict.fromkeys(max(step, wide) for step in STEPS):
            points.append(_point(store, vectors, least, limit, wide))
            if points[-1].recall >= _ENOUGH:
                break
    finally:
        store.ef = before
    return points


def choose(points: Sequence[Point], recall: float) -> Point | None:
    """The narrowest search that finds enough, None when none does."""
    return next((point for point in points if point.recall >= recall), None)


def _sample(store: Store, count: int) -> Vectors:
    """Vectors of rows from all over the collection, shape (n, dim); keys are hashes, so any place is as good."""
    found: dict[str, Row] = {}
    for _ in range(count):
        key = secrets.token_hex(4)
        for row in store.fetch(where=f'image_id >= "{key}"', fields=["embedding"], limit=1):
            found[row["image_id"]] = row
    return np.stack([np.asarray(row["embedding"], dtype=np.float32) for row in found.values()])


def _exact(store: Store, vectors: Vectors, limit: int) -> np.ndarray:
    """The score of the last of the nearest `limit` rows, by comparing every one; shape (n,)."""
    best = np.full((len(vectors), limit), -2.0, dtype=np.float32)
    for chunk in _chunks(store):
        scores = np.concatenate([best, vectors @ chunk.T], axis=1)
        best = np.partition(scores, scores.shape[1] - limit, axis=1)[:, -limit:]
    least: np.ndarray = best.min(axis=1)
    return least


def _chunks(store: Store) -> Iterator[Vectors]:
    chunk: list[np.ndarray] = []
    for row in store.rows(fields=["embedding"]):
        chunk.append(np.asarray(row["embedding"], dtype=np.float32))
        if len(chunk) == _CHUNK:
            yield np.stack(chunk)
            chunk = []
    if chunk:
        yield np.stack(chunk)


def _point(store: Store, vectors: Vectors, least: np.ndarray, limit: int, wide: int) -> Point:
    took, found, wanted = [], 0, 0
    for vector, bound in zip(vectors, least, strict=True):
        started = time.perf_counter()
        rows = store.search(vector, wide, fields=["product_id"])
        took.append((time.perf_counter() - started) * 1_000)
        near = sum(row["score"] >= bound - _SAME_SCORE for row in rows)
        of = limit if bound > -2 else len(rows)  # a collection may have fewer rows
        found, wanted = found + min(near, of), wanted + of
    return Point(store.ef, found / max(1, wanted), round(statistics.median(took), 2))
