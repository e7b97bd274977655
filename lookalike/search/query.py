"""A query: what the products should be like, and which of them to return."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lookalike.schema.errors import BadQuery
from lookalike.schema.filters.ast import Filter, check_filter_size

MAX_LIMIT = 1_000
MAX_REACH = 10_000
"""The largest sum of offset and limit."""

MAX_PARTS = 32
MAX_PER_PRODUCT = 100
MAX_TEXT = 10_000
MAX_WEIGHT = 1_000.0


@dataclass(frozen=True, slots=True)
class Part:
    """One example of a query: exactly one of the five, and its weight relative to the other parts.

    `image` is the bytes of an image file, `vector` an embedding of the collection's encoder, of any length but zero.
    `name` is what an error calls an image that cannot be read. Raises BadQuery.
    """

    image: bytes | None = None
    text: str | None = None
    product_id: str | None = None
    image_id: str | None = None
    vector: Sequence[float] | None = None
    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        given = (self.image, self.text, self.product_id, self.image_id, self.vector)
        if sum(value is not None for value in given) != 1:
            raise BadQuery("a part of a query is exactly one of image, text, product_id, image_id and vector")
        if self.text is not None:
            _check_text(self.text)
        for value in (self.text, self.product_id, self.image_id):
            if value is not None and any("\ud800" <= character <= "\udfff" for character in value):
                raise BadQuery(f"{value!a} is not valid UTF-8")
        if self.vector is not None and not (all(map(math.isfinite, self.vector)) and any(self.vector)):
            raise BadQuery("a vector needs finite numbers, not all of them zero")
        if not 0 < self.weight <= MAX_WEIGHT:
            raise BadQuery(
                f"weight {self.weight} is not above 0 and at most {MAX_WEIGHT:g}; to avoid something, use `unlike`"
            )


@dataclass(frozen=True, slots=True)
class Query:
    """A query: one or several parts that the products should be like, or unlike.

    `image`, `text`, `product_id`, `image_id` and `vector` are short for a part of `like` with the weight 1. Each part
    becomes a unit vector (a product the normalised mean of its images). The search goes in the direction of

        Σ wᵢvᵢ / Σ wᵢ over `like`  -  ½ · Σ wᵢvᵢ / Σ wᵢ over `unlike`

    (Rocchio, "Relevance feedback in information retrieval", 1971). The result leaves out products that a part names.

    `min_score` leaves out products with a lower cosine, `within` those that score more than it below the best one.
    `per_product` is how many images of each product to return, best first; `fields` which metadata fields, None for
    all. With the same `limit`, pages at `offset` 0, `limit`, 2 `limit`, … neither repeat nor skip a product, as long as
    nothing is written to the collection and a server has built its graph. Raises BadQuery, BadFilter.
    """

    image: bytes | None = None
    text: str | None = None
    product_id: str | None = None
    image_id: str | None = None
    vector: Sequence[float] | None = None
    like: tuple[Part, ...] = ()
    unlike: tuple[Part, ...] = ()
    where: Filter = ()
    limit: int = 10
    offset: int = 0
    min_score: float | None = None
    within: float | None = None
    per_product: int = 1
    fields: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.liked:
            raise BadQuery("the query is empty: give an image, text, product_id, image_id or vector, or a list `like`")
        if len(self.liked) + len(self.unlike) > MAX_PARTS:
            raise BadQuery(f"{len(self.liked) + len(self.unlike)} parts are too many; {MAX_PARTS} is the limit")
        check_filter_size(self.where)
        _check_range("limit", self.limit, 1, MAX_LIMIT)
        _check_range("offset", self.offset, 0, MAX_REACH - self.limit)
        _check_range("per_product", self.per_product, 1, MAX_PER_PRODUCT)
        if self.min_score is not None:
            _check_range("min_score", self.min_score, -1, 1)
        if self.within is not None:
            _check_range("within", self.within, 0, 2)

    @property
    def liked(self) -> tuple[Part, ...]:
        """All parts that the products should be like: the short forms, then `like`."""
        short = (
            Part(image=self.image) if self.image is not None else None,
            Part(text=self.text) if self.text is not None else None,
            Part(product_id=self.product_id) if self.product_id is not None else None,
            Part(image_id=self.image_id) if self.image_id is not None else None,
            Part(vector=self.vector) if self.vector is not None else None,
        )
        return (*filter(None, short), *self.like)


def _check_text(text: str) -> None:
    if not text.strip():
        raise BadQuery("the text is empty; give it words, or leave it out")
    if len(text) > MAX_TEXT:
        raise BadQuery(f"a text of {len(text)} characters is too long; {MAX_TEXT} is the limit")


def _check_range(name: str, value: float, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise BadQuery(f"{name} {value} is not between {lowest} and {highest}")
