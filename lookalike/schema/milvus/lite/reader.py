"""Reading a Milvus Lite collection from its memory with numpy; Milvus Lite itself iterates over the rows in Python.

Milvus Lite runs inside this process, which alone may open its folder, so all rows are at hand: a search is the product
of a matrix and a vector (docs/benchmarks.md has the figures). Writes go through Milvus Lite and its log. With another
version of Milvus Lite, or a filter that lite/filter.py does not evaluate, it calls Milvus Lite (ServerReader).
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from typing import Any

import numpy as np
import numpy.typing as npt
from milvus_lite.exceptions import MilvusLiteError
from milvus_lite.search.filter import FilterError

from lookalike.schema.milvus.connection import Connection
from lookalike.schema.milvus.lite.filter import Mask, UnsupportedExpression, evaluate, parse_expression
from lookalike.schema.milvus.lite.segments import Segment, Snapshot
from lookalike.schema.milvus.reader import Consistency, Row, ServerReader, to_cosine
from lookalike.schema.product import Vector

# The memory layout that this module reads is private to Milvus Lite, and known for these versions.
_IS_SUPPORTED = installed_version("milvus-lite").startswith("3.2.")

_MAX_SCORES = 2**24
"""Cosines in memory at once: 64 MB."""

_SPARSE = 0.2
"""If a filter matches a smaller share of a segment, only the vectors that match are compared; else all are."""


@dataclass(frozen=True, slots=True)
class _CachedSnapshot:
    """A snapshot, and the number of writes and the segments when it was taken."""

    snapshot: Snapshot
    write_count: int
    lite_segments: tuple[Any, ...]


class LiteReader(ServerReader):
    """Reads a version of a collection in Milvus Lite; searches are exact."""

    def __init__(self, connection: Connection, version: str) -> None:
        super().__init__(connection, version)
        self._cached: _CachedSnapshot | None = None
        # By the id of Milvus Lite's segment, which is held beside ours so that no other object gets that id.
        self._segments: dict[int, tuple[Any, Segment]] = {}
        self._lock = threading.Lock()

    def search(
        self, vectors: Sequence[Vector], limit: int, where: str, fields: Sequence[str], ef: int | None
    ) -> list[list[Row]]:
        """Return the rows nearest to each vector, best first, each with its cosine as `score`."""
        matching = self._match(where)
        if matching is None:
            return super().search(vectors, limit, where, fields, ef)
        batch_size = max(1, _MAX_SCORES // max((len(mask) for _, mask in matching), default=1))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        queries = (np.asarray(vectors) / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        results: list[list[Row]] = []
        for start in range(0, len(queries), batch_size):
            results += _find_nearest(matching, queries[start : start + batch_size], limit, ["image_id", *fields])
        return results

    def fetch(self, where: str, fields: Sequence[str], limit: int, consistency: Consistency) -> list[Row]:
        """Read up to `limit` of the rows that match, in no order."""
        matching = self._match(where)
        if matching is None:
            return super().fetch(where, fields, limit, consistency)
        rows: list[Row] = []
        for segment, mask in matching:
            rows += segment.read(np.flatnonzero(mask)[: limit - len(rows)], ["image_id", *fields])
        return rows

    def count(self, where: str, consistency: Consistency) -> int:
        """Count the rows that match."""
        matching = self._match(where)
        if matching is None:
            return super().count(where, consistency)
        return sum(int(mask.sum()) for _, mask in matching)

    def _match(self, where: str) -> list[tuple[Segment, Mask]] | None:
        """Return all segments, each with a mask of the rows that match; None when Milvus Lite has to be called."""
        snapshot = self._snapshot()
        if snapshot is None:
            return None
        if not where:
            return list(snapshot.segments)
        try:
            expression = parse_expression(where)
            return [(segment, mask & evaluate(expression, segment.column)) for segment, mask in snapshot.segments]
        except (UnsupportedExpression, FilterError):
            return None

    def _snapshot(self) -> Snapshot | None:
        """Return a snapshot that has every write so far; None when Milvus Lite's memory cannot be read."""
        collection = self._lite_collection()
        if collection is None:
            return None
        with self._lock:
            if self._cached is not None and self._is_fresh(self._cached, collection):
                return self._cached.snapshot
        # Under the write lock: during a flush, rows are for a moment in neither the memtable nor a segment.
        with self.connection.write_lock, self._lock:
            if self._cached is None or not self._is_fresh(self._cached, collection):
                self._cached = self._take_snapshot(collection)
            return self._cached.snapshot

    def _is_fresh(self, cached: _CachedSnapshot, collection: Any) -> bool:
        return cached.write_count == self.connection.write_count and not _has_merged_segments(collection, cached)

    def _lite_collection(self) -> Any:
        database = self.connection.lite_database() if _IS_SUPPORTED else None
        try:
            return database and database.get_collection(self.version)
        except MilvusLiteError:  # it was dropped: the call to Milvus Lite will raise the error
            return None

    def _take_snapshot(self, collection: Any) -> _CachedSnapshot:
        """Take a snapshot. Segments never change, so those of the previous snapshot are used again."""
        memtable = collection._memtable
        lite_segments, deletes = collection._read_snapshot()
        keys, timestamps, _, _, table = memtable.to_search_snapshot(vector_field=None, include_table=True)
        recent_deletes = {key: deleted for key, (deleted, _) in memtable.delete_index_snapshot().items()}
        self._segments = {id(item): self._segments.get(id(item)) or (item, _segment(item)) for item in lite_segments}
        segments = [segment for _, segment in self._segments.values()]
        if keys:
            row_by_key = {key: row for row, key in enumerate(keys)}
            segments.append(Segment(row_by_key, timestamps, table, _read_vectors(table)))
        snapshot = Snapshot.of(segments, {**deletes._map, **recent_deletes})
        return _CachedSnapshot(snapshot, self.connection.write_count, lite_segments)


def _segment(lite_segment: Any) -> Segment:
    return Segment(lite_segment.pk_to_row, lite_segment.seqs, lite_segment.table, lite_segment.vectors)


def _read_vectors(table: Any) -> npt.NDArray[np.float32]:
    column = table.column("embedding").combine_chunks()
    flat: npt.NDArray[np.float32] = column.flatten().to_numpy()
    return flat.reshape(len(column), -1)


def _has_merged_segments(collection: Any, cached: _CachedSnapshot) -> bool:
    """Return whether Milvus Lite has merged segments: the rows are the same, but the old segments would stay in memory.

    False while it is still merging, so that no search waits for it.
    """
    lock = collection._maintenance_lock
    if not lock.acquire(blocking=False):
        return False
    try:
        lite_segments = tuple(collection._segment_cache.values())
    finally:
        lock.release()
    return list(map(id, lite_segments)) != list(map(id, cached.lite_segments))


Candidate = tuple[float, Segment, int]
"""A score, and the segment and row that have it."""


def _find_nearest(
    matching: Sequence[tuple[Segment, Mask]], queries: npt.NDArray[np.float32], limit: int, fields: Sequence[str]
) -> list[list[Row]]:
    """Return the rows nearest to each unit vector; `queries` has shape (queries, dim)."""
    candidates: list[list[Candidate]] = [[] for _ in queries]
    for segment, mask in matching:
        rows = np.flatnonzero(mask)
        is_sparse = len(rows) < _SPARSE * len(mask)
        scores = segment.scores(queries, rows if is_sparse else None)
        if not is_sparse and len(rows) < len(mask):
            scores[~mask] = -np.inf
        for best, column in zip(candidates, scores.T, strict=True):
            top = _top_indices(column, min(limit, len(rows)))
            best += [(float(column[index]), segment, int(rows[index] if is_sparse else index)) for index in top]
    return [_read_rows(sorted(best, key=lambda candidate: -candidate[0])[:limit], fields) for best in candidates]


def _top_indices(scores: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int64]:
    """Return the indices of the highest scores, best first."""
    if not count:
        return np.empty(0, dtype=np.int64)
    top = np.argpartition(-scores, count - 1)[:count] if count < len(scores) else np.arange(len(scores))
    ordered: npt.NDArray[np.int64] = top[np.argsort(-scores[top], kind="stable")]
    return ordered


def _read_rows(best: Sequence[Candidate], fields: Sequence[str]) -> list[Row]:
    """Read the rows of the candidates, segment by segment; return them in the order of the candidates."""
    result: list[Row] = [{}] * len(best)
    for segment in {id(segment): segment for _, segment, _ in best}.values():
        indices = [index for index, (_, owner, _) in enumerate(best) if owner is segment]
        rows = segment.read(np.array([best[index][2] for index in indices], dtype=np.int64), fields)
        for index, row in zip(indices, rows, strict=True):
            result[index] = {**row, "score": to_cosine(best[index][0])}
    return result
