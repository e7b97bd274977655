"""Recall and latency of a server's graph search, by how widely it searches (`ef`)."""

import secrets
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Vectors
from lookalike.search.resolved_query import ROWS_PER_PRODUCT

STEPS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024, 1_536, 2_048, 3_072, 4_096)
_FULL_RECALL = 0.9995
_CHUNK = 8_192
_SAME_SCORE = 1e-6


@dataclass(frozen=True, slots=True)
class Point:
    """The recall of the nearest rows with an `ef`, 0 to 1, and the median milliseconds of a single search."""

    ef: int
    recall: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class _GroundTruth:
    """Query vectors, shape (n, dim), and the score of the last of the `limit` nearest rows of each, shape (n,)."""

    vectors: Vectors
    lowest_scores: np.ndarray
    limit: int


def measure_recall(store: Store, limit: int, queries: int) -> list[Point]:
    """Search for `limit` rows with vectors of the collection itself; raise `ef` until nearly all rows are found.

    A row counts as found when it scores as high as those that an exact search returns.
    """
    vectors = _sample_vectors(store, queries)
    truth = _GroundTruth(vectors, _lowest_scores(store, vectors, limit), limit)
    rows = min(ROWS_PER_PRODUCT * limit, store.window)
    points: list[Point] = []
    before = store.ef
    try:
        for store.ef in dict.fromkeys(max(step, rows) for step in STEPS):
            points.append(_measure_point(store, truth, rows))
            if points[-1].recall >= _FULL_RECALL:
                break
    finally:
        store.ef = before
    return points


def choose_point(points: Sequence[Point], recall: float) -> Point | None:
    """Return the point with the smallest `ef` that reaches the recall, None if there is none."""
    return next((point for point in points if point.recall >= recall), None)


def _sample_vectors(store: Store, count: int) -> Vectors:
    """Read vectors of rows from all over the collection, shape (n, dim).

    Keys are hashes, so the row after a random key is a random row.
    """
    rows: dict[str, Row] = {}
    for _ in range(count):
        key = secrets.token_hex(4)
        for row in store.fetch(where=f'image_id >= "{key}"', fields=["embedding"], limit=1):
            rows[row["image_id"]] = row
    return np.stack([np.asarray(row["embedding"], dtype=np.float32) for row in rows.values()])


def _lowest_scores(store: Store, vectors: Vectors, limit: int) -> np.ndarray:
    """Compute the score of the last of the nearest `limit` rows by comparing all rows: shape (n,).

    It is -2 where the collection has fewer rows.
    """
    best = np.full((len(vectors), limit), -2.0, dtype=np.float32)
    for chunk in _read_chunks(store):
        scores = np.concatenate([best, vectors @ chunk.T], axis=1)
        best = np.partition(scores, scores.shape[1] - limit, axis=1)[:, -limit:]
    lowest: np.ndarray = best.min(axis=1)
    return lowest


def _read_chunks(store: Store) -> Iterator[Vectors]:
    chunk: list[np.ndarray] = []
    for row in store.rows(fields=["embedding"]):
        chunk.append(np.asarray(row["embedding"], dtype=np.float32))
        if len(chunk) == _CHUNK:
            yield np.stack(chunk)
            chunk = []
    if chunk:
        yield np.stack(chunk)


def _measure_point(store: Store, truth: _GroundTruth, rows: int) -> Point:
    """Measure the `ef` that the store has now, with searches for so many rows."""
    milliseconds, found, expected = [], 0, 0
    for vector, lowest in zip(truth.vectors, truth.lowest_scores, strict=True):
        started = time.perf_counter()
        nearest = store.search(vector, rows, fields=["product_id"])
        milliseconds.append((time.perf_counter() - started) * 1_000)
        near = sum(row["score"] >= lowest - _SAME_SCORE for row in nearest)
        existing = truth.limit if lowest > -2 else len(nearest)
        found, expected = found + min(near, existing), expected + existing
    return Point(store.ef, found / max(1, expected), round(statistics.median(milliseconds), 2))
