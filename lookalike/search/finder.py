"""One path from a question to the products that answer it: query → encode → nearest → group → product ids."""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

import numpy as np

from lookalike.encode.decode import MAX_PIXELS
from lookalike.encode.encoder import Encoder
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.schema.collection import require_same_encoder
from lookalike.schema.filters.expression import column_in, compile_filter
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Hit, HitImage, Vector
from lookalike.search.query import Query
from lookalike.search.query_encoder import PartError, QueryEncoder, ResolvedPart, Stages, StageTimer
from lookalike.search.ranking import best_by_product, combine, cut

_FIELDS = ("product_id", "image", "metadata")
_FEW = 5_000
"""Rows that are compared one by one rather than missed."""

_IMAGES = 4
_WIDE = 1_000
"""Rows that cost hardly more than a few."""


class SearchMany(Protocol):
    """How Store.search_many is called."""

    def __call__(
        self, vectors: Sequence[Vector], limit: int, *, where: str = "", fields: Sequence[str] = ()
    ) -> list[list[Row]]:
        """Search for several vectors, an answer for each."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Distinct products, best first, and the milliseconds it took to find them.

    `next_offset` is where the next page starts, None after the last one.
    """

    hits: list[Hit]
    took_ms: float
    next_offset: int | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question as it goes to Milvus: what is nearest to `vector`, without the products `named`."""

    query: Query
    vector: Vector
    named: frozenset[str]
    images: int
    """Of the products that the question names, the most that one has; the others may have as many."""

    @property
    def round(self) -> tuple[str, int]:
        """The filter, and how many rows are asked for at first.

        That depends on the limit, not on the offset: all pages are cut from one sequence.
        """
        limit = self.query.limit
        return compile_filter(self.query.where), limit * max(_IMAGES, min(self.images, _WIDE // limit))


class Finder:
    """Answers questions about one collection; safe to use from several threads.

    `load` loads the collection's encoder; it is called with the first question that has an image or words in it,
    so that asking by product id needs no network at all. Images that are decoded at the same time have at most
    `max_pixels` pixels in all. A product's vector is cached for `cache_seconds` seconds, so that the next question like
    it is one call to Milvus. `search_many` stands in for that of the store. Each stage (decode, encode, lookup, search)
    begins with `check_deadline`, which may raise, and runs inside `timer(stage)`. Decoding holds one of `decode_slots`.
    """

    def __init__(
        self,
        store: Store,
        load: Callable[[], Encoder],
        *,
        max_pixels: int = MAX_PIXELS,
        cache_seconds: float = 0,
        search_many: SearchMany | None = None,
        timer: StageTimer = nullcontext,
        check_deadline: Callable[[], None] = lambda: None,
        decode_slots: threading.Semaphore | None = None,
    ) -> None:
        self.store = store
        self._load = load
        self._loading = threading.Lock()
        self._encoder: Encoder | None = None
        self._stages = Stages(timer, check_deadline, decode_slots)
        self._search_many = search_many or store.search_many
        self._reader = QueryEncoder(store, lambda: self.encoder, PixelBudget(max_pixels), self._stages, cache_seconds)

    def forget(self, product_id: str) -> None:
        """A product was written: what is remembered of it holds no longer."""
        self._reader.recent.forget(product_id)

    @property
    def encoder(self) -> Encoder:
        """The encoder of the collection. Raises EncoderUnavailable, EncoderMismatch."""
        with self._loading:
            if self._encoder is None:
                encoder = self._load()
                require_same_encoder(self.store.name, self.store.fingerprint, encoder.fingerprint)
                self._encoder = encoder
            return self._encoder

    def find(self, query: Query) -> SearchResult:
        """Find the products most like what is asked: `query.limit` of them, or all that match if they are fewer.

        A product that the question names is not part of the answer. Raises BadImage for an image that cannot be
        read, BadQuery for words without an encoder that knows them, UnknownProduct and StoreUnavailable.
        """
        [answer] = self.find_many([query])
        if not isinstance(answer, SearchResult):
            raise answer
        return answer

    def find_many(self, queries: Sequence[Query]) -> list[SearchResult | PartError]:
        """Answer several questions; those with the same filter and limit go to Milvus together.

        A question that cannot be answered gets its error in the place of an answer.
        """
        if any(part.image or part.text for query in queries for part in (*query.liked, *query.unlike)):
            self.encoder  # noqa: B018  loading it is not part of the time an answer takes
        started = time.perf_counter()
        understood = self._understand(queries)
        first = iter(self._first_rows([asked for asked in understood if isinstance(asked, _Asked)]))
        return [
            self._answer(asked, next(first), started) if isinstance(asked, _Asked) else asked for asked in understood
        ]

    def _understand(self, queries: Sequence[Query]) -> list[_Asked | PartError]:
        meanings = iter(self._reader.read([part for query in queries for part in (*query.liked, *query.unlike)]))
        return [
            _combined(query, list(islice(meanings, len(query.liked))), list(islice(meanings, len(query.unlike))))
            for query in queries
        ]

    def _first_rows(self, several: Sequence[_Asked]) -> list[list[Row]]:
        """Search for each; questions of one filter and width in one call."""
        together: dict[tuple[str, int], list[int]] = {}
        for place, asked in enumerate(several):
            together.setdefault(asked.round, []).append(place)
        found: list[list[Row]] = [[] for _ in several]
        for (where, width), places in together.items():
            vectors = [several[place].vector for place in places]
            with self._stages.run("search"):
                answers = self._few(vectors, where) or self._search_many(vectors, width, where=where, fields=_FIELDS)
            for place, rows in zip(places, answers, strict=True):
                found[place] = rows
        return found

    def _few(self, vectors: Sequence[Vector], where: str) -> list[list[Row]] | None:
        """Compare all rows that a filter leaves, when they are few and Milvus would not find them all.

        A server with its graph built does so itself, and Milvus Lite always.
        """
        if not where or not self.store.is_indexing() or self.store.count(where, consistency="Session") > _FEW:
            return None
        return [list(self._compared(vector, where)) for vector in vectors]

    def _answer(self, asked: _Asked, rows: list[Row], started: float) -> SearchResult:
        query = asked.query
        near = cut(self._nearest(asked, rows), query.min_score, query.within)
        hits = list(islice(near, query.offset, query.offset + query.limit + 1))
        more = len(hits) > query.limit
        shown = [_with_fields(hit, query.fields) for hit in self._with_images(asked, hits[: query.limit])]
        took_ms = round((time.perf_counter() - started) * 1_000, 3)
        return SearchResult(shown, took_ms, query.offset + query.limit if more else None)

    def _nearest(self, asked: _Asked, rows: list[Row]) -> Iterator[Hit]:
        """All products that match, nearest first, as far as they are asked for.

        Each round looks four times as wide as the one before; past the widest that Milvus answers, and where a graph
        ends, beyond the products that are known. (A filter that leaves those out would be narrower, but they are the
        very neighbours over which a graph leads to the others.) The sequence depends on question and limit alone.
        """
        where, width = asked.round
        known, beyond = set(asked.named), where
        while True:
            yield from _new(rows, known)
            ended = len(rows) < min(width, self.store.window)
            behind = self._left_behind(beyond, len(rows)) if ended else None
            if behind is not None and (behind <= _FEW or not rows):
                yield from _new(self._compared(asked.vector, _without(where, known)) if behind else (), known)
                return
            width *= 4
            if ended or width > self.store.window:
                beyond = _without(where, known)
            with self._stages.run("search"):
                [rows] = self._search_many([asked.vector], width, where=beyond, fields=_FIELDS)

    def _left_behind(self, where: str, found: int) -> int:
        """Count the rows that match, but that a graph search has not reached: with a filter it may end early."""
        return 0 if self.store.is_exact else max(0, self.store.count(where, consistency="Session") - found)

    def _compared(self, vector: Vector, where: str) -> Iterator[Row]:
        """Compare every row that matches."""
        rows = self.store.rows(where=where, fields=[*_FIELDS, "embedding"], consistency="Session")
        return (_scored(row, vector) for row in rows)

    def _with_images(self, asked: _Asked, hits: list[Hit]) -> list[Hit]:
        """Add the best images of each product, when more than one is asked for."""
        count = asked.query.per_product
        if count == 1 or not hits:
            return hits
        of_hits = column_in("product_id", [hit.product_id for hit in hits])
        where = " and ".join(part for part in (asked.round[0], of_hits) if part)
        best: dict[str, list[HitImage]] = {hit.product_id: [] for hit in hits}
        fields = ["product_id", "image", "embedding"]
        for row in self.store.rows(where=where, fields=fields, consistency="Session"):
            score = float(_scored(row, asked.vector)["score"])
            images = best[row["product_id"]]
            images.append(HitImage(row["image_id"], score, row["image"]))
            images.sort(key=lambda image: (-image.score, image.image_id))
            del images[count:]
        return [replace(hit, images=tuple(best[hit.product_id])) for hit in hits]


def _combined(
    query: Query, like: list[ResolvedPart | PartError], unlike: list[ResolvedPart | PartError]
) -> _Asked | PartError:
    good: list[ResolvedPart] = []
    for meaning in (*like, *unlike):
        if not isinstance(meaning, ResolvedPart):
            return meaning
        good.append(meaning)
    weighted = [(part.weight, m.vector) for part, m in zip((*query.liked, *query.unlike), good, strict=True)]
    vector = combine(weighted[: len(like)], weighted[len(like) :])
    named = frozenset().union(*(meaning.named for meaning in good))
    return _Asked(query, vector, named, max(meaning.images for meaning in good))


def _new(rows: Iterable[Row], known: set[str]) -> Iterator[Hit]:
    """The products of rows that are not known yet, best first; then they are."""
    for hit in best_by_product(row for row in rows if row["product_id"] not in known):
        known.add(hit.product_id)
        yield hit


def _with_fields(hit: Hit, fields: Sequence[str] | None) -> Hit:
    if fields is None:
        return hit
    return replace(hit, metadata={name: hit.metadata[name] for name in fields if name in hit.metadata})


def _scored(row: Row, vector: Vector) -> Row:
    return {**row, "embedding": None, "score": float(np.dot(np.asarray(row["embedding"], dtype=np.float32), vector))}


def _without(where: str, products: Collection[str]) -> str:
    others = f"not ({column_in('product_id', sorted(products))})" if products else ""
    return " and ".join(part for part in (where, others) if part)
