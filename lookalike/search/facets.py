"""What products can be narrowed by: the columns of their metadata that have few values, and those of numbers."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lookalike.schema.filters.expression import COLUMNS
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Metadata

MAX_FACET_VALUES = 30
"""A column with more values is no list that anybody reads."""

_MOST_COLUMNS = 200
_LONGEST = 100
MAX_TRACKED_VALUES = 500_000
"""Pairs of a product and a value that are remembered, some 50 MB; past them nothing is counted any more."""


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value of a column, as text, and how many products have it; None when there are too many to count."""

    value: str
    products: int | None = None


@dataclass(frozen=True, slots=True)
class ValueFacet:
    """A column of a few texts, or of true and false; those of most products first."""

    column: str
    choices: tuple[FacetValue, ...]


@dataclass(frozen=True, slots=True)
class RangeFacet:
    """A column of numbers; None where their bounds are not known."""

    column: str
    least: float | None = None
    most: float | None = None


Facet = ValueFacet | RangeFacet


def facets(store: Store) -> list[Facet]:
    """Read the metadata of every row of a collection, once, and say what it can be narrowed by."""
    return count_facets(store.rows(fields=["product_id", "metadata"]))


def count_facets(rows: Iterable[Row], most_remembered: int = MAX_TRACKED_VALUES) -> list[Facet]:
    """Say what rows can be narrowed by: columns that most images have come first, memory is bounded."""
    tally = _Tally(most_remembered)
    for row in rows:
        tally.add(row["product_id"], row["metadata"])
    return tally.facets()


class _Column:
    """What was seen of a column so far."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.images = 0
        self.products: Counter[str] = Counter()
        self.least = self.most = 0.0
        self._pairs: set[int] = set()

    def add(self, product_id: str, value: Any) -> int:
        """Take in a value; returns by how much the memory of pairs grew, less than nothing where it was let go."""
        self.images += 1
        kind = _kind(value)
        if kind == "number":
            self.least = value if "number" not in self.kinds else min(self.least, value)
            self.most = value if "number" not in self.kinds else max(self.most, value)
        self.kinds.add(kind)
        if not self.is_choice:
            return -self.forget()
        return self._count(product_id, spelt(value)) if kind == "choice" else 0

    @property
    def is_choice(self) -> bool:
        """Whether it can still become a list of choices."""
        return self.kinds == {"choice"} and len(self.products) <= MAX_FACET_VALUES

    def forget(self) -> int:
        """Let go of the pairs; returns how many there were."""
        held = len(self._pairs)
        self._pairs.clear()
        return held

    def _count(self, product_id: str, value: str) -> int:
        pair = hash((product_id, value))
        if pair in self._pairs:
            return 0
        self._pairs.add(pair)
        self.products[value] += 1
        return 1


class _Tally:
    """All columns, in memory that does not grow with the collection past a bound."""

    def __init__(self, most_remembered: int) -> None:
        self._most_remembered = most_remembered
        self._columns: dict[str, _Column] = {}
        self._remembered = 0
        self._counts = True

    def add(self, product_id: str, metadata: Metadata) -> None:
        """Take in a row."""
        for name, value in metadata.items():
            column = self._column(name)
            if column is not None and value is not None:
                self._remembered += column.add(product_id, value)
        if self._remembered > self._most_remembered:
            self._counts = False
            self._remembered = 0
            for column in self._columns.values():
                column.forget()

    def facets(self) -> list[Facet]:
        """What came of it."""
        seen = sorted(self._columns.items(), key=lambda item: (-item[1].images, item[0]))
        found = (self._facet(name, column) for name, column in seen)
        return [facet for facet in found if facet is not None]

    def _column(self, name: str) -> _Column | None:
        if name not in self._columns:
            # A column of ours by that name is what a filter would mean.
            if len(self._columns) >= _MOST_COLUMNS or len(name) > _LONGEST or name in COLUMNS:
                return None
            self._columns[name] = _Column()
        return self._columns[name]

    def _facet(self, name: str, column: _Column) -> Facet | None:
        if column.is_choice:
            counted = sorted(column.products.items(), key=lambda item: (-item[1], item[0]))
            return ValueFacet(name, tuple(FacetValue(value, n if self._counts else None) for value, n in counted))
        if column.kinds == {"number"} and column.least < column.most:
            return RangeFacet(name, column.least, column.most)
        return None


def spelt(value: str | bool) -> str:
    """Write a choice as text, true and false as JSON has them."""
    return value if isinstance(value, str) else str(value).lower()


def _kind(value: Any) -> str:
    if isinstance(value, bool) or (isinstance(value, str) and len(value) <= _LONGEST):
        return "choice"
    return "number" if isinstance(value, int | float) else "other"
