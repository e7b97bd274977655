"""The facets of a collection: metadata columns with few values, and those with numbers."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lookalike.schema.filters.expression import COLUMNS
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Metadata

MAX_FACET_VALUES = 30
"""A column with more values is not offered: nobody reads so long a list."""

MAX_TRACKED_VALUES = 500_000
"""Pairs of product and value held in memory, some 50 MB. Past this bound, products are no longer counted."""

_MAX_COLUMNS = 200
_MAX_LENGTH = 100
"""Characters of a column's name, and of a value."""


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value of a column, as text, and how many products have it; None where there were too many to count."""

    value: str
    products: int | None = None


@dataclass(frozen=True, slots=True)
class ValueFacet:
    """A column with a few texts, or with true and false; the values of most products come first."""

    column: str
    choices: tuple[FacetValue, ...]


@dataclass(frozen=True, slots=True)
class RangeFacet:
    """A column of numbers and its bounds, None where they are unknown."""

    column: str
    minimum: float | None = None
    maximum: float | None = None


Facet = ValueFacet | RangeFacet


def read_facets(store: Store) -> list[Facet]:
    """Compute the facets of a collection. Reads the metadata of every row once."""
    return count_facets(store.rows(fields=["product_id", "metadata"]))


def count_facets(rows: Iterable[Row], max_tracked: int = MAX_TRACKED_VALUES) -> list[Facet]:
    """Compute the facets of rows, columns of most images first, in bounded memory."""
    counter = _FacetCounter(max_tracked)
    for row in rows:
        counter.add(row["product_id"], row["metadata"])
    return counter.facets()


class _Column:
    """The values of one column so far."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.images = 0
        self.products: Counter[str] = Counter()
        self.lowest = self.highest = 0.0
        self._pairs: set[int] = set()

    def add(self, product_id: str, value: Any) -> int:
        """Count a value; return by how many tracked pairs memory has grown, negative where pairs were dropped."""
        self.images += 1
        kind = _kind(value)
        if kind == "number":
            self.lowest = value if "number" not in self.kinds else min(self.lowest, value)
            self.highest = value if "number" not in self.kinds else max(self.highest, value)
        self.kinds.add(kind)
        if not self.has_few_values:
            return -self.drop_pairs()
        return self._count(product_id, format_value(value)) if kind == "choice" else 0

    @property
    def has_few_values(self) -> bool:
        """Whether the column can still become a ValueFacet."""
        return self.kinds == {"choice"} and len(self.products) <= MAX_FACET_VALUES

    def drop_pairs(self) -> int:
        """Stop tracking which product has which value; return how many pairs were dropped."""
        dropped = len(self._pairs)
        self._pairs.clear()
        return dropped

    def _count(self, product_id: str, value: str) -> int:
        pair = hash((product_id, value))
        if pair in self._pairs:
            return 0
        self._pairs.add(pair)
        self.products[value] += 1
        return 1


class _FacetCounter:
    """Counts the values of all columns, tracking at most `max_tracked` pairs of product and value."""

    def __init__(self, max_tracked: int) -> None:
        self._max_tracked = max_tracked
        self._columns: dict[str, _Column] = {}
        self._tracked = 0
        self._has_counts = True

    def add(self, product_id: str, metadata: Metadata) -> None:
        """Count the values of a row."""
        for name, value in metadata.items():
            column = self._column(name)
            if column is not None and value is not None:
                self._tracked += column.add(product_id, value)
        if self._tracked > self._max_tracked:
            self._has_counts = False
            self._tracked = 0
            for column in self._columns.values():
                column.drop_pairs()

    def facets(self) -> list[Facet]:
        """Return the facets of the rows so far."""
        by_images = sorted(self._columns.items(), key=lambda item: (-item[1].images, item[0]))
        facets = (self._facet(name, column) for name, column in by_images)
        return [facet for facet in facets if facet is not None]

    def _column(self, name: str) -> _Column | None:
        if name not in self._columns:
            # A filter on a name such as `source` means the collection's own column, not the metadata.
            if len(self._columns) >= _MAX_COLUMNS or len(name) > _MAX_LENGTH or name in COLUMNS:
                return None
            self._columns[name] = _Column()
        return self._columns[name]

    def _facet(self, name: str, column: _Column) -> Facet | None:
        if column.has_few_values:
            counts = sorted(column.products.items(), key=lambda item: (-item[1], item[0]))
            return ValueFacet(name, tuple(FacetValue(value, n if self._has_counts else None) for value, n in counts))
        if column.kinds == {"number"} and column.lowest < column.highest:
            return RangeFacet(name, column.lowest, column.highest)
        return None


def format_value(value: str | bool) -> str:
    """Write a value as text, true and false as in JSON."""
    return value if isinstance(value, str) else str(value).lower()


def _kind(value: Any) -> str:
    if isinstance(value, bool) or (isinstance(value, str) and len(value) <= _MAX_LENGTH):
        return "choice"
    return "number" if isinstance(value, int | float) else "other"
