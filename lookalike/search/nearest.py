"""The products nearest to a query, however many images each of them has: searches that grow until they suffice."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Hit, Vector
from lookalike.search.exact_search import HIT_FIELDS, MAX_COMPARED_ROWS, compare_rows, exclude_products
from lookalike.search.query_groups import run_grouped
from lookalike.search.ranking import group_by_product
from lookalike.search.resolved_query import ResolvedQuery
from lookalike.search.stage_hooks import CheckDeadline, TimeStage

_GROWTH = 4


class SearchMany(Protocol):
    """The signature of Store.search_many."""

    def __call__(
        self, vectors: Sequence[Vector], limit: int, *, where: str = "", fields: Sequence[str] = ()
    ) -> list[list[Row]]:
        """Return the rows nearest to each of several vectors."""


class NearestProducts:
    """Searches a collection for distinct products; safe to use from several threads."""

    def __init__(
        self, store: Store, search_many: SearchMany, *, timer: TimeStage, check_deadline: CheckDeadline
    ) -> None:
        self._store = store
        self._search_many = search_many
        self._timer = timer
        self._check_deadline = check_deadline

    def search_first(self, queries: Sequence[ResolvedQuery]) -> list[list[Row]]:
        """Return the nearest `first_limit` rows of each query; queries with the same filter and limit share a call."""
        return run_grouped(queries, key=lambda query: (query.where, query.first_limit), run=self._search_group)

    def iterate_products(self, query: ResolvedQuery, first_rows: Sequence[Row]) -> Iterator[Hit]:
        """Yield all products that match, nearest first; search only as far as the caller reads.

        Each search fetches four times as many rows as the one before. Past `Store.window`, and once a graph search has
        ended early, the searches exclude the products that were already yielded. (Excluding them from the start would
        need fewer rows, but a graph search reaches the other rows through exactly these neighbours.)
        """
        seen = set(query.excluded_products)
        where, limit, rows = query.where, query.first_limit, first_rows
        while True:
            yield from _new_products(rows, seen)
            has_ended = len(rows) < min(limit, self._store.window)
            if has_ended:
                unreached = self._count_unreached(where, len(rows))
                if unreached <= MAX_COMPARED_ROWS or not rows:
                    if unreached:
                        others = exclude_products(query.where, seen)
                        yield from _new_products(compare_rows(self._store, others, query.vector), seen)
                    return
            limit *= _GROWTH
            if has_ended or limit > self._store.window:
                where = exclude_products(query.where, seen)
            rows = self._search_wider(query.vector, limit, where)

    def _search_group(self, queries: Sequence[ResolvedQuery]) -> list[list[Row]]:
        """Search for queries that have the same filter and limit."""
        where, limit = queries[0].where, queries[0].first_limit
        vectors = [query.vector for query in queries]
        self._check_deadline()
        with self._timer("search"):
            if self._should_compare_rows(where):
                return [list(compare_rows(self._store, where, vector)) for vector in vectors]
            return self._search_many(vectors, limit, where=where, fields=HIT_FIELDS)

    def _search_wider(self, vector: Vector, limit: int, where: str) -> list[Row]:
        self._check_deadline()
        with self._timer("search"):
            return self._search_many([vector], limit, where=where, fields=HIT_FIELDS)[0]

    def _should_compare_rows(self, where: str) -> bool:
        """Whether a filter leaves few rows, and Milvus could miss some of them because it still builds its graph.

        A server with a complete graph compares few rows itself, and Milvus Lite compares all rows in any case.
        """
        if not where or not self._store.is_indexing():
            return False
        return self._store.count(where, consistency="Session") <= MAX_COMPARED_ROWS

    def _count_unreached(self, where: str, found: int) -> int:
        """Count the matching rows that a graph search has missed: with a filter it may end before it finds them all."""
        return 0 if self._store.is_exact else max(0, self._store.count(where, consistency="Session") - found)


def _new_products(rows: Iterable[Row], seen: set[str]) -> Iterator[Hit]:
    """Yield the products that are not in `seen`, best first, and add them to it."""
    for hit in group_by_product(row for row in rows if row["product_id"] not in seen):
        seen.add(hit.product_id)
        yield hit
