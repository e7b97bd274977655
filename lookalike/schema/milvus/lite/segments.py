"""The rows of a Milvus Lite collection, in the segments in which Milvus Lite holds them in memory."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from lookalike.schema.errors import StoreUnavailable
from lookalike.schema.milvus.lite.damage import ADVICE
from lookalike.schema.milvus.lite.filter import Column, Mask

_MAX_CACHED_COLUMNS = 32
"""Of each segment. A limit is needed because a filter may name any column."""

_MIN_QUERIES_FOR_BLAS = 8
"""Fewer queries are compared one by one without BLAS, whose threads wait for each other in concurrent searches."""

Timestamps = npt.NDArray[np.uint64]
"""When each row was written, larger is later; shape (rows,)."""


class Segment:
    """A segment, or the rows that are in none yet: an Arrow table and its vectors, shape (rows, dim), not copied."""

    def __init__(
        self,
        row_by_key: Mapping[str, int],
        timestamps: Timestamps,
        table: Any,
        vectors: npt.NDArray[np.float32],
    ) -> None:
        self.row_by_key = row_by_key
        """Image id → row number."""
        self.timestamps = timestamps
        self.table = table
        self.vectors = vectors
        # float32 is enough for the squares: the stored vectors are of unit length but for rounding.
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        self.lengths = np.where(lengths > 0, lengths, 1).astype(np.float32)
        self._columns: MutableMapping[tuple[str, str], Column] = LRUCache(_MAX_CACHED_COLUMNS)
        self._lock = threading.Lock()

    def column(self, name: str, key: str) -> Column:
        """Return a column, or with a key the values under that key of a JSON column; the last used are cached."""
        with self._lock:
            column = self._columns.get((name, key))
        if column is None:
            with _raise_damaged():
                values = self.table.column(name).to_pylist()
                column = Column(map(_value_under(key), values) if key else values)
            with self._lock:
                self._columns[name, key] = column
        return column

    def scores(self, queries: npt.NDArray[np.float32], rows: npt.NDArray[np.int64] | None) -> npt.NDArray[np.float32]:
        """Return the cosines of unit vectors, (queries, dim), with these rows, or with all: (rows, queries)."""
        vectors, lengths = (self.vectors, self.lengths) if rows is None else (self.vectors[rows], self.lengths[rows])
        if len(queries) >= _MIN_QUERIES_FOR_BLAS:
            products = vectors @ queries.T
        else:
            products = np.stack([np.einsum("nd,d->n", vectors, query) for query in queries], axis=1)
        cosines: npt.NDArray[np.float32] = products / lengths[:, None]
        return cosines

    def read(self, rows: npt.NDArray[np.int64], fields: Iterable[str]) -> list[dict[str, Any]]:
        """Read columns of some rows; vectors as arrays of shape (dim,)."""
        with _raise_damaged():
            return self._read(rows, set(fields))

    def _read(self, rows: npt.NDArray[np.int64], names: set[str]) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = self.table.select(sorted(names - {"embedding"})).take(rows).to_pylist()
        for row, record in zip(rows, records, strict=True):
            if "metadata" in names:
                record["metadata"] = json.loads(record["metadata"])
            if "embedding" in names:
                record["embedding"] = self.vectors[row]
        return records


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A collection at one moment: its segments, each with a mask of the rows that are current."""

    segments: Sequence[tuple[Segment, Mask]]

    @classmethod
    def of(cls, segments: Sequence[Segment], deleted_at: Mapping[str, int]) -> "Snapshot":
        """Find the current rows: the latest row of each key, unless the key was deleted after it was written."""
        current = [(segment, _latest_rows(segment)) for segment in segments]
        for one, other in combinations(current, 2):
            _unmark_earlier(one, other)
        for key, deleted in deleted_at.items():
            for segment, mask in current:
                row = segment.row_by_key.get(key)
                if row is not None and segment.timestamps[row] < deleted:
                    mask[row] = False
        return cls(current)


def _unmark_earlier(one: tuple[Segment, Mask], other: tuple[Segment, Mask]) -> None:
    """Of each key that is in both segments, unmark the row that was written earlier."""
    for key in one[0].row_by_key.keys() & other[0].row_by_key.keys():
        segment, mask = min(one, other, key=lambda pair: pair[0].timestamps[pair[0].row_by_key[key]])
        mask[segment.row_by_key[key]] = False


def _latest_rows(segment: Segment) -> Mask:
    """Mark the latest row of each key within a segment."""
    rows = len(segment.timestamps)
    if len(segment.row_by_key) == rows:
        return np.ones(rows, dtype=bool)
    latest = np.zeros(rows, dtype=bool)
    latest[list(segment.row_by_key.values())] = True
    return latest


@contextmanager
def _raise_damaged() -> Iterator[None]:
    """Raise StoreUnavailable for rows that are not as they were written: Milvus Lite opens damaged files as well."""
    try:
        yield
    # The errors of Arrow, of JSON and of UTF-8 are kinds of these.
    except (KeyError, ValueError, TypeError) as error:
        raise StoreUnavailable(f"rows of the store are damaged ({error}). {ADVICE}") from error


def _value_under(key: str) -> Callable[[str], Any]:
    return lambda text: json.loads(text).get(key)
