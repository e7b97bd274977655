"""The rows of a Milvus Lite collection, in the parts in which it keeps them in memory."""

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.schema.milvus.lite.filter import Column, Mask

_KEPT = 32
"""Columns that are kept of each part: whoever asks may ask for any name."""

_MANY = 8
"""Fewer questions are asked one by one, without BLAS: its threads wait for each other when several ask at once."""

Stamps = npt.NDArray[np.uint64]
"""When each row was written: the larger, the later; shape (rows,)."""


class Segment:
    """A segment, or what is not in one yet: an Arrow table, and its vectors, of shape (rows, dim), without a copy."""

    def __init__(self, places: Mapping[str, int], stamps: Stamps, table: Any, vectors: npt.NDArray[np.float32]) -> None:
        self.places = places
        """From the keys to the rows."""
        self.stamps = stamps
        self.table = table
        self.vectors = vectors
        # Squares of 32 bits are enough: what is stored is of unit length but for the last digit.
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        self.lengths = np.where(lengths > 0, lengths, 1).astype(np.float32)
        self._columns: dict[tuple[str, str], Column] = {}
        self._looking = threading.Lock()

    def column(self, name: str, key: str) -> Column:
        """A column, or what JSON objects in it have under a key; those that were asked for last are kept."""
        with self._looking:
            column = self._columns.pop((name, key), None)
        if column is None:
            values = self.table.column(name).to_pylist()
            column = Column(map(_under(key), values) if key else values)
        with self._looking:
            self._columns[name, key] = column
            while len(self._columns) > _KEPT:
                del self._columns[next(iter(self._columns))]
        return column

    def scores(self, queries: npt.NDArray[np.float32], rows: npt.NDArray[np.int64] | None) -> npt.NDArray[np.float32]:
        """The cosine of unit vectors, (queries, dim), with some rows, or with all: (rows, queries)."""
        vectors, lengths = (self.vectors, self.lengths) if rows is None else (self.vectors[rows], self.lengths[rows])
        if len(queries) >= _MANY:
            products = vectors @ queries.T
        else:
            products = np.stack([np.einsum("nd,d->n", vectors, query) for query in queries], axis=1)
        cosines: npt.NDArray[np.float32] = products / lengths[:, None]
        return cosines

    def read(self, rows: npt.NDArray[np.int64], fields: Iterable[str]) -> list[dict[str, Any]]:
        """Read columns of some rows; vectors as arrays of shape (dim,)."""
        names = set(fields)
        found: list[dict[str, Any]] = self.table.select(sorted(names - {"embedding"})).take(rows).to_pylist()
        for place, row in zip(rows, found, strict=True):
            if "metadata" in names:
                row["metadata"] = json.loads(row["metadata"])
            if "embedding" in names:
                row["embedding"] = self.vectors[place]
        return found


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A collection at one moment: its parts, each with the rows of it that count."""

    parts: Sequence[tuple[Segment, Mask]]

    @classmethod
    def of(cls, parts: Sequence[Segment], deleted: Mapping[str, int]) -> "Snapshot":
        """See which rows count: of each key the last one, unless it was deleted later; `deleted` says when."""
        alive = [(part, _whole(part)) for part in parts]
        for one, other in combinations(alive, 2):
            _keep_later(one, other)
        for key, stamp in deleted.items():
            for part, mask in alive:
                place = part.places.get(key)
                if place is not None and part.stamps[place] < stamp:
                    mask[place] = False
        return cls(alive)


def _keep_later(one: tuple[Segment, Mask], other: tuple[Segment, Mask]) -> None:
    for key in one[0].places.keys() & other[0].places.keys():
        earlier = min((part.stamps[part.places[key]], n) for n, (part, _) in enumerate((one, other)))[1]
        part, mask = (one, other)[earlier]
        mask[part.places[key]] = False


def _whole(part: Segment) -> Mask:
    rows = len(part.stamps)
    if len(part.places) == rows:
        return np.ones(rows, dtype=bool)
    last = np.zeros(rows, dtype=bool)
    last[list(part.places.values())] = True
    return last


def _under(key: str) -> Callable[[str], Any]:
    return lambda text: json.loads(text).get(key)
