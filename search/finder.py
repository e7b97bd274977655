"""One path from a question to the products that answer it: query → encode → nearest → group → product ids."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from encode.decode import decode
from encode.encoder import Encoder, TextEncoder
from encode.models import WITH_WORDS
from schema.collection import require_same_encoder
from schema.errors import BadQuery, UnknownProduct
from schema.expressions import any_of, compile_filter
from schema.product import Hit, Vector
from schema.store import Fields, Store
from search.query import Query
from search.ranking import best_by_product, combine

_FIELDS = ("product_id", "image", "metadata")
_PICTURES_OF_A_PRODUCT = 1_000


@dataclass(frozen=True, slots=True)
class Answer:
    """Distinct products, best first, and the milliseconds it took to find them."""

    hits: list[Hit]
    took_ms: float


class Finder:
    """Answers questions about one collection.

    `load` loads the collection's encoder; it is called with the first question that has a picture or words in it,
    so that asking by product id needs no network at all.
    """

    def __init__(self, store: Store, load: Callable[[], Encoder]) -> None:
        self._store = store
        self._load = load

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder of the collection. Raises EncoderUnavailable, EncoderMismatch."""
        encoder = self._load()
        require_same_encoder(self._store.name, self._store.fingerprint, encoder.fingerprint)
        return encoder

    def find(self, query: Query) -> Answer:
        """Find the products most like what is asked: `query.limit` of them, or all that match if they are fewer.

        A product that the question names is not part of the answer. Raises BadImage for a picture that cannot be
        read, BadQuery for words without an encoder that knows them, UnknownProduct and StoreUnavailable.
        """
        if query.image is not None or query.text is not None:
            self.encoder  # noqa: B018  loading it is not part of the time an answer takes
        started = time.perf_counter()
        vector = combine(self._vectors(query))
        hits = self._nearest(vector, query)
        return Answer(hits, round((time.perf_counter() - started) * 1_000, 3))

    def _vectors(self, query: Query) -> Iterator[Vector]:
        if query.image is not None:
            yield self.encoder.encode_images(self.encoder.prepare(decode(query.image))[None])[0]
        if query.text is not None:
            yield self._text_vector(query.text)
        if query.product_id is not None:
            yield self._product_vector(query.product_id)

    def _text_vector(self, text: str) -> Vector:
        if not isinstance(self.encoder, TextEncoder):
            raise BadQuery(
                f"{self.encoder.fingerprint.encoder!r} knows pictures but no words. An encoder with words is "
                f"{WITH_WORDS!r}: lookalike ingest SOURCE --encoder {WITH_WORDS} --collection NEW_NAME"
            )
        vector: Vector = self.encoder.encode_texts([text])[0]
        return vector

    def _product_vector(self, product_id: str) -> Vector:
        rows = self._store.fetch(
            where=any_of("product_id", [product_id]), fields=["embedding"], limit=_PICTURES_OF_A_PRODUCT
        )
        if not rows:
            raise UnknownProduct(f"no product {product_id!r} in {self._store.name!r}; ids are spelt as in the source")
        # In no order as they come: a sum of floats depends on it.
        rows.sort(key=lambda row: str(row["image_id"]))
        return combine(np.asarray(row["embedding"], dtype=np.float32) for row in rows)

    def _nearest(self, vector: Vector, query: Query) -> list[Hit]:
        """Search wider and wider, leaving out the products already found, until there are enough of them."""
        found: dict[str, Hit] = {}
        named = [query.product_id] if query.product_id is not None else []
        width = 4 * query.limit
        while len(found) < query.limit:
            where = _where(compile_filter(query.where), [*named, *found])
            rows = self._store.search(vector, width, where=where, fields=_FIELDS)
            found |= best_by_product(rows, query.min_score)
            if rows and query.min_score is not None and rows[-1]["score"] < query.min_score:
                break
            if len(rows) < min(width, self._store.window):
                found |= self._left_behind(vector, query, [*named, *found])
                break
            width *= 4
        ranked = sorted(found.values(), key=lambda hit: -hit.score)
        return ranked[: query.limit]

    def _left_behind(self, vector: Vector, query: Query, known: list[str]) -> dict[str, Hit]:
        """Products that a graph search did not reach although they match: compare every row that is left."""
        where = _where(compile_filter(query.where), known)
        if self._store.exact or self._store.count(where, consistency="Session") == 0:
            return {}
        rows = self._store.rows(where=where, fields=[*_FIELDS, "embedding"])
        return best_by_product((_scored(row, vector) for row in rows), query.min_score)


def _scored(row: Fields, vector: Vector) -> Fields:
    return {**row, "embedding": None, "score": float(np.dot(np.asarray(row["embedding"], dtype=np.float32), vector))}


def _where(expression: str, without: list[str]) -> str:
    others = f"not ({any_of('product_id', without)})" if without else ""
    return " and ".join(part for part in (expression, others) if part)
