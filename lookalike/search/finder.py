"""Search, from a query to product ids: query → encode → nearest → group → rank → product ids."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice

from lookalike.encode.encoder import Encoder
from lookalike.encode.image_limits import MAX_PIXELS
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.schema.collection import require_same_encoder
from lookalike.schema.errors import BadFilter
from lookalike.schema.filters.ast import Filter
from lookalike.schema.milvus.filter_check import FilterChecker
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Hit
from lookalike.search.exact_search import add_best_images
from lookalike.search.nearest import NearestProducts, SearchMany
from lookalike.search.product_vectors import ProductVectors
from lookalike.search.query import Query
from lookalike.search.query_encoder import QueryEncoder
from lookalike.search.ranking import rank_products
from lookalike.search.resolved_query import PartError, ResolvedQuery, resolve_query
from lookalike.search.stage_hooks import CheckDeadline, TimeStage, no_deadline


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Distinct products, best first, and how many milliseconds the search took.

    `next_offset` is where the next page starts, None after the last one.
    """

    hits: list[Hit]
    took_ms: float
    next_offset: int | None = None


class Finder:
    """Searches one collection; safe to use from several threads.

    `load` loads the collection's encoder, when the first query with an image or a text arrives: a search by product id
    needs no encoder. Images that are decoded at the same time have at most `max_pixels` pixels in all. The vector of a
    product is cached for `cache_seconds`, which saves one of the two calls to Milvus. `search_many` replaces that of
    the store.

    Around each stage (decode, encode, lookup, search): `check_deadline` is called before it and raises to abort the
    search, `timer` measures it, and `decode_slots` limits how many threads decode at once.
    """

    def __init__(
        self,
        store: Store,
        load: Callable[[], Encoder],
        *,
        max_pixels: int = MAX_PIXELS,
        cache_seconds: float = 0,
        search_many: SearchMany | None = None,
        timer: TimeStage = nullcontext,
        check_deadline: CheckDeadline = no_deadline,
        decode_slots: threading.Semaphore | None = None,
    ) -> None:
        self.store = store
        self._filter_checker = FilterChecker(store)
        self._load = load
        self._loading = threading.Lock()
        self._encoder: Encoder | None = None
        self._products = ProductVectors(store, cache_seconds=cache_seconds, timer=timer, check_deadline=check_deadline)
        self._query_encoder = QueryEncoder(
            self.load_encoder,
            self._products,
            PixelBudget(max_pixels),
            timer=timer,
            check_deadline=check_deadline,
            decode_slots=decode_slots,
        )
        self._nearest = NearestProducts(
            store, search_many or store.search_many, timer=timer, check_deadline=check_deadline
        )

    def load_encoder(self) -> Encoder:
        """Return the encoder of the collection, loaded once. Raises EncoderUnavailable, EncoderMismatch."""
        with self._loading:
            if self._encoder is None:
                encoder = self._load()
                require_same_encoder(self.store.name, self.store.fingerprint, encoder.fingerprint)
                self._encoder = encoder
            return self._encoder

    def invalidate_product(self, product_id: str) -> None:
        """Drop the cached vector of a product that was written or deleted."""
        self._products.invalidate(product_id)

    def find(self, query: Query) -> SearchResult:
        """Find the products most like a query: `query.limit` of them, or all that match if they are fewer.

        The result leaves out products that the query names. Raises BadImage for an image that cannot be read, BadQuery
        for a text where the encoder has no text tower, BadFilter, UnknownProduct, and StoreUnavailable.
        """
        [result] = self.find_many([query])
        if not isinstance(result, SearchResult):
            raise result
        return result

    def find_many(self, queries: Sequence[Query]) -> list[SearchResult | PartError]:
        """Find the products of several queries; a query that cannot be answered gets its error instead of a result.

        Queries with the same filter and limit share one call to Milvus.
        """
        if any(part.image or part.text for query in queries for part in (*query.liked, *query.unlike)):
            self.load_encoder()  # before the clock starts: loading is not part of `took_ms`
        started = time.perf_counter()
        problems = [self._find_filter_problem(query) for query in queries]
        encoded = iter(self._encode([query for query, problem in zip(queries, problems, strict=True) if not problem]))
        resolved = [problem or next(encoded) for problem in problems]
        first_rows = iter(self._nearest.search_first([query for query in resolved if isinstance(query, ResolvedQuery)]))
        return [
            self._select_hits(query, next(first_rows), started) if isinstance(query, ResolvedQuery) else query
            for query in resolved
        ]

    def check_filter(self, where: Filter) -> None:
        """Raise BadFilter for a filter that cannot match: a column that no product has, a value of another kind."""
        self._filter_checker.check(where)

    def _find_filter_problem(self, query: Query) -> BadFilter | None:
        try:
            self.check_filter(query.where)
        except BadFilter as problem:
            return problem
        return None

    def _encode(self, queries: Sequence[Query]) -> list[ResolvedQuery | PartError]:
        """Turn each query into a vector, encoding the parts of all queries together."""
        parts = [part for query in queries for part in (*query.liked, *query.unlike)]
        encoded = iter(self._query_encoder.encode_parts(parts, self.store.fingerprint.dim))
        return [
            resolve_query(query, list(islice(encoded, len(query.liked))), list(islice(encoded, len(query.unlike))))
            for query in queries
        ]

    def _select_hits(self, resolved: ResolvedQuery, first_rows: Sequence[Row], started: float) -> SearchResult:
        """Group rows by product, rank the products, and cut out the page; search wider if the page is not full."""
        query = resolved.query
        products = self._nearest.iterate_products(resolved, first_rows)
        ranked = rank_products(products, query)
        # One more than the page: is there a next one?
        hits = list(islice(ranked, query.offset, query.offset + query.limit + 1))
        next_offset = query.offset + query.limit if len(hits) > query.limit else None
        hits = hits[: query.limit]
        if query.per_product > 1:
            hits = add_best_images(self.store, resolved, hits)
        hits = [_select_fields(hit, query.fields) for hit in hits]
        took_ms = round((time.perf_counter() - started) * 1_000, 3)
        return SearchResult(hits, took_ms, next_offset)


def _select_fields(hit: Hit, fields: Sequence[str] | None) -> Hit:
    """Keep only these fields of the metadata, in this order; all of them where `fields` is None."""
    if fields is None:
        return hit
    return replace(hit, metadata={name: hit.metadata[name] for name in fields if name in hit.metadata})
