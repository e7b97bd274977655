"""Which kind of value a column of a collection has: a value of another kind is stored, but no filter finds it."""

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

from cachetools import TTLCache

from lookalike.schema.filters.ast import Condition
from lookalike.schema.filters.columns import KINDS
from lookalike.schema.filters.expression import compile_filter
from lookalike.schema.milvus.store_reader import StoreReader
from lookalike.schema.product import Metadata

_SAMPLE = 1_000
"""How many rows with a column are read to learn its kind."""

_CACHE_SECONDS = 60.0
_MAX_COLUMNS = 1_000
_RARE = 0.1

_WITH_ARTICLE = {
    "text": "text",
    "number": "a number",
    "boolean": "true or false",
    "list": "a list",
    "object": "an object",
}


class ColumnKinds:
    """Learns the kinds of columns, each by one query that is cached for a minute. Safe to use from several threads.

    `scope` is an expression for the rows that count; all of them by default.
    """

    def __init__(self, store: StoreReader, scope: str = "") -> None:
        self._store = store
        self._scope = scope
        self._cached: TTLCache[str, Counter[str]] = TTLCache(_MAX_COLUMNS, _CACHE_SECONDS)
        self._lock = threading.Lock()

    def has_rows(self) -> bool:
        """Return whether there are any rows that count."""
        return bool(self._store.fetch(where=self._scope or 'image_id != ""', fields=["image_id"], limit=1))

    def find_other_kind(self, column: str, kind: type) -> tuple[str, str] | None:
        """Return the kind that a column has, and the one of a value that is not like it, both as words with an article.

        None when at least a tenth of the values that the column has are of the kind of the type `kind`, or it has none.
        """
        counts = self._count_kinds(column)
        if not counts or counts[KINDS[kind]] >= _RARE * counts.total():
            return None
        usual, _ = counts.most_common(1)[0]
        return _WITH_ARTICLE[usual], _WITH_ARTICLE[KINDS[kind]]

    def describe_product(self, metadata: Metadata) -> Iterator[str]:
        """Say of which columns a product has values of another kind than the collection."""
        for column, value in metadata.items():
            kinds = self.find_other_kind(column, type(value))
            if kinds:
                yield (
                    f"{column} is {kinds[0]} in this collection, and {kinds[1]} in this product: "
                    "filters on it will not find it"
                )

    def _count_kinds(self, column: str) -> Counter[str]:
        with self._lock:
            if column in self._cached:
                return self._cached[column]
        counts = Counter(KINDS[type(value)] for value in sample_column(self._store, column, _SAMPLE, self._scope))
        if counts:  # a product may have a new column a moment later
            with self._lock:
                self._cached[column] = counts
        return counts


def sample_column(store: StoreReader, column: str, limit: int, scope: str = "") -> list[Any]:
    """Read at most `limit` values of a column, from the rows that match the expression `scope`."""
    exists = compile_filter((Condition(column, "exists"),))
    where = f"{scope} and {exists}" if scope else exists
    return [row["metadata"][column] for row in store.fetch(where=where, fields=["metadata"], limit=limit)]
