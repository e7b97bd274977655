"""Reading a Milvus Lite collection from its own memory, where Milvus Lite goes over it row by row in Python.

Milvus Lite runs inside this process and belongs to it alone, so all that it holds is at hand: a search is the product
of a matrix and a vector (docs/benchmarks.md has the figures). What is written still goes through Milvus Lite and its
log. Where it is not as it is known here, it is asked like any Milvus.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed
from typing import Any

import numpy as np
import numpy.typing as npt
from milvus_lite.exceptions import MilvusLiteError
from milvus_lite.search.filter import FilterError

from lookalike.schema.milvus.connection import Connection
from lookalike.schema.milvus.lite.filter import Mask, NotUnderstood, keep, parsed
from lookalike.schema.milvus.lite.segments import Segment, Snapshot
from lookalike.schema.milvus.reader import Consistency, Row, ServerReader, cosine
from lookalike.schema.product import Vector

_KNOWN = installed("milvus-lite").startswith("3.2.")
_MOST_SCORES = 2**24
"""Cosines that are held at once: 64 MB."""

_SPARSE = 0.2
"""Of fewer rows the vectors are gathered; of more, all are compared and some are left out."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A view, and what was the case when it was taken."""

    view: Snapshot
    changes: int
    segments: tuple[Any, ...]


class LiteReader(ServerReader):
    """Reads a version of a collection in Milvus Lite; exact."""

    def __init__(self, wire: Connection, version: str) -> None:
        super().__init__(wire, version)
        self._seen: _Seen | None = None
        self._parts: dict[int, tuple[Any, Segment]] = {}
        self._looking = threading.Lock()

    def search(
        self, vectors: Sequence[Vector], limit: int, where: str, fields: Sequence[str], ef: int | None
    ) -> list[list[Row]]:
        """Return the rows nearest to each vector, best first, each with its cosine as `score`."""
        kept = self._kept(where)
        if kept is None:
            return super().search(vectors, limit, where, fields, ef)
        together = max(1, _MOST_SCORES // max((len(mask) for _, mask in kept), default=1))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        queries = (np.asarray(vectors) / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        found: list[list[Row]] = []
        for start in range(0, len(queries), together):
            found += _nearest(kept, queries[start : start + together], limit, ["image_id", *fields])
        return found

    def fetch(self, where: str, fields: Sequence[str], limit: int, consistency: Consistency) -> list[Row]:
        """Read up to `limit` of the rows that match, in no order."""
        kept = self._kept(where)
        if kept is None:
            return super().fetch(where, fields, limit, consistency)
        found: list[Row] = []
        for part, mask in kept:
            found += part.read(np.flatnonzero(mask)[: limit - len(found)], ["image_id", *fields])
        return found

    def count(self, where: str, consistency: Consistency) -> int:
        """Count the rows that match."""
        kept = self._kept(where)
        return super().count(where, consistency) if kept is None else sum(int(mask.sum()) for _, mask in kept)

    def _kept(self, where: str) -> list[tuple[Segment, Mask]] | None:
        """All parts, and which of their rows match; None where Milvus Lite has to be asked."""
        view = self._view()
        if view is None:
            return None
        if not where:
            return list(view.parts)
        try:
            return [(part, alive & keep(parsed(where), part.column)) for part, alive in view.parts]
        except (NotUnderstood, FilterError):
            return None

    def _view(self) -> Snapshot | None:
        """The collection as it is; None when that is not to be had."""
        collection = self._collection()
        if collection is None:
            return None
        with self._looking:
            if self._seen is not None and self._is_fresh(self._seen, collection):
                return self._seen.view
        # Between two writes: while it flushes, rows are for a moment neither here nor there.
        with self.wire.writing, self._looking:
            if self._seen is None or not self._is_fresh(self._seen, collection):
                self._seen = self._look(collection)
            return self._seen.view

    def _is_fresh(self, seen: _Seen, collection: Any) -> bool:
        return seen.changes == self.wire.changes and not _merged(collection, seen)

    def _collection(self) -> Any:
        database = self.wire.lite_database() if _KNOWN else None
        try:
            return database and database.get_collection(self.version)
        except MilvusLiteError:  # it is gone, which Milvus Lite itself says best
            return None

    def _look(self, collection: Any) -> _Seen:
        """Take a view. Of segments, which never change, what was found out is kept."""
        memory = collection._memtable
        segments, deleted = collection._read_snapshot()
        keys, stamps, _, _, table = memory.to_search_snapshot(vector_field=None, include_table=True)
        deletes = {**deleted._map, **{key: stamp for key, (stamp, _) in memory.delete_index_snapshot().items()}}
        self._parts = {id(segment): self._parts.get(id(segment)) or _part(segment) for segment in segments}
        parts = [part for _, part in self._parts.values()]
        if keys:
            parts.append(Segment({key: place for place, key in enumerate(keys)}, stamps, table, _vectors(table)))
        return _Seen(Snapshot.of(parts, deletes), self.wire.changes, segments)


def _part(segment: Any) -> tuple[Any, Segment]:
    """The segment is kept beside it, so that no other one gets its id."""
    return segment, Segment(segment.pk_to_row, segment.seqs, segment.table, segment.vectors)


def _vectors(table: Any) -> npt.NDArray[np.float32]:
    column = table.column("embedding").combine_chunks()
    flat: npt.NDArray[np.float32] = column.flatten().to_numpy()
    return flat.reshape(len(column), -1)


def _merged(collection: Any, seen: _Seen) -> bool:
    """Tell whether segments were merged: the rows are the same, but the old ones would be held twice.

    While that is being done nobody waits for it.
    """
    lock = collection._maintenance_lock
    if not lock.acquire(blocking=False):
        return False
    try:
        segments = tuple(collection._segment_cache.values())
    finally:
        lock.release()
    return list(map(id, segments)) != list(map(id, seen.segments))


def _nearest(
    kept: Sequence[tuple[Segment, Mask]], queries: npt.NDArray[np.float32], limit: int, fields: Sequence[str]
) -> list[list[Row]]:
    """The rows nearest to each of some unit vectors, of shape (queries, dim)."""
    best: list[list[tuple[float, Segment, int]]] = [[] for _ in queries]
    for part, mask in kept:
        rows = np.flatnonzero(mask)
        few = len(rows) < _SPARSE * len(mask)
        scores = part.scores(queries, rows if few else None)
        if not few and len(rows) < len(mask):
            scores[~mask] = -np.inf
        for answer, column in zip(best, scores.T, strict=True):
            top = _top(column, min(limit, len(rows)))
            answer += [(float(column[place]), part, int(rows[place] if few else place)) for place in top]
    return [_read(sorted(answer, key=lambda one: -one[0])[:limit], fields) for answer in best]


def _top(scores: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int64]:
    """The places of the highest scores, best first."""
    if not count:
        return np.empty(0, dtype=np.int64)
    top = np.argpartition(-scores, count - 1)[:count] if count < len(scores) else np.arange(len(scores))
    ordered: npt.NDArray[np.int64] = top[np.argsort(-scores[top], kind="stable")]
    return ordered


def _read(best: Sequence[tuple[float, Segment, int]], fields: Sequence[str]) -> list[Row]:
    """Read the rows, part by part, and put them in their order."""
    found: list[Row] = [{}] * len(best)
    for part in {id(part): part for _, part, _ in best}.values():
        places = [place for place, (_, owner, _) in enumerate(best) if owner is part]
        rows = part.read(np.array([best[place][2] for place in places], dtype=np.int64), fields)
        for place, row in zip(places, rows, strict=True):
            found[place] = {**row, "score": cosine(best[place][0])}
    return found
