"""Whether the rows of a collection can match a filter at all: a typo is an error, not an empty result."""

from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import Condition, Filter, iter_conditions
from lookalike.schema.filters.columns import (
    describe_mismatch,
    describe_unknown_column,
    kinds_of,
    list_matching_kinds,
)
from lookalike.schema.filters.expression import COLUMNS, quote_literal
from lookalike.schema.milvus.column_kinds import sample_column
from lookalike.schema.milvus.store_reader import StoreReader

_SAMPLE = 1_000
"""How many rows are read to name the columns, or the kinds of a column, in an error message."""

_HAS_KIND = {
    "text": '{path} like "%"',
    "number": "{path} >= -1.7976931348623157e308",
    "boolean": "({path} == true or {path} == false)",
}


class FilterChecker:
    """Checks filters against the rows of a collection. Safe to use from several threads.

    The first filter on a column costs one query for a single row; what was found once is not queried again. A column
    that is found to be missing is, since a product may have it a moment later.
    """

    def __init__(self, store: StoreReader) -> None:
        self._store = store
        self._found: set[tuple[str, str]] = set()
        """Columns, each with a kind of value that at least one row has."""

    def check(self, where: Filter) -> None:
        """Raise BadFilter for a column that no row has, and for values of a kind that a column never holds."""
        for condition in iter_conditions(where):
            if condition.column not in COLUMNS and not self._can_match(condition):
                self._refuse(condition)

    def _can_match(self, condition: Condition) -> bool:
        kinds = list_matching_kinds(condition)
        if any((condition.column, kind) in self._found for kind in kinds):
            return True
        found = self._find_kinds(condition.column, kinds)
        self._found.update((condition.column, kind) for kind in found)
        return not kinds.isdisjoint(found)

    def _find_kinds(self, column: str, kinds: frozenset[str]) -> set[str]:
        """Return which of some kinds the rows of a column may have."""
        if kinds <= _HAS_KIND.keys():
            path = f"metadata[{quote_literal(column)}]"
            return {kind for kind in kinds if self._has_row(_HAS_KIND[kind].format(path=path))}
        # No expression matches lists. In a column with more rows than the sample, one may be among the others.
        sample = sample_column(self._store, column, _SAMPLE)
        return set(kinds) if len(sample) == _SAMPLE else kinds_of(sample)

    def _has_row(self, where: str) -> bool:
        return bool(self._store.fetch(where=where, fields=["image_id"], limit=1))

    def _refuse(self, condition: Condition) -> None:
        kinds = kinds_of(sample_column(self._store, condition.column, _SAMPLE))
        if kinds:
            raise BadFilter(describe_mismatch(condition, kinds))
        rows = self._store.fetch(where='image_id != ""', fields=["metadata"], limit=_SAMPLE)
        if rows:  # an empty collection has no columns, and nothing to find
            raise BadFilter(
                describe_unknown_column(condition.column, {name for row in rows for name in row["metadata"]})
            )
