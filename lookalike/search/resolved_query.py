"""A query as Milvus can search for it: one vector, a filter expression, and how many rows to fetch first."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lookalike.schema.errors import BadFilter, BadImage, BadQuery, UnknownProduct
from lookalike.schema.filters.expression import compile_filter
from lookalike.schema.product import Vector
from lookalike.search.query import Query

UNLIKE_WEIGHT = 0.5
"""Weight of the mean of the `unlike` vectors, relative to the mean of the `like` vectors."""

ROWS_PER_PRODUCT = 4
"""How many rows a search fetches first for each product of its limit."""

_MAX_FIRST_ROWS = 1_000
"""Fetching this many rows takes hardly longer than fetching a few."""

WeightedVector = tuple[float, Vector]

PartError = BadImage | BadQuery | BadFilter | UnknownProduct
"""An error in one query of several; the others are unaffected."""


@dataclass(frozen=True, slots=True)
class ResolvedPart:
    """The unit vector of one part, shape (dim,), and the products that the part names.

    `image_count` is how many images such a product has, 1 where that is unknown.
    """

    vector: Vector
    product_ids: frozenset[str] = frozenset()
    image_count: int = 1


@dataclass(frozen=True, slots=True)
class ResolvedQuery:
    """A query with its vector, shape (dim,), unit length.

    `where` is its filter as a Milvus expression. The result leaves out the `excluded_products`. `first_limit` is how
    many rows the first search fetches. It depends on the query's limit, not on its offset, so that all pages are cut
    from one sequence of products.
    """

    query: Query
    vector: Vector
    where: str
    excluded_products: frozenset[str]
    first_limit: int


def resolve_query(
    query: Query, like: Sequence[ResolvedPart | PartError], unlike: Sequence[ResolvedPart | PartError]
) -> ResolvedQuery | PartError:
    """Combine the resolved parts of a query; return the first error among them, if there is one."""
    parts: list[ResolvedPart] = []
    for index, part in enumerate((*like, *unlike)):
        if not isinstance(part, ResolvedPart):
            return _name_image(query, index, part)
        parts.append(part)
    weights = [part.weight for part in (*query.liked, *query.unlike)]
    weighted = [(weight, part.vector) for weight, part in zip(weights, parts, strict=True)]
    # Other products may have as many images as those that the query names.
    images_per_product = max(part.image_count for part in parts)
    return ResolvedQuery(
        query=query,
        vector=combine_vectors(weighted[: len(like)], weighted[len(like) :]),
        where=compile_filter(query.where),
        excluded_products=frozenset().union(*(part.product_ids for part in parts)),
        first_limit=query.limit * max(ROWS_PER_PRODUCT, min(images_per_product, _MAX_FIRST_ROWS // query.limit)),
    )


def _name_image(query: Query, index: int, error: PartError) -> PartError:
    """Say in the error of a part which image it is about: its name, or which of several."""
    if not isinstance(error, BadImage):
        return error
    parts = (*query.liked, *query.unlike)
    images = [position for position, part in enumerate(parts) if part.image is not None]
    number = f"image {images.index(index) + 1} of {len(images)}" if len(images) > 1 else ""
    name = parts[index].name or number
    return BadImage(f"{name}: {error}") if name else error


def combine_vectors(like: Sequence[WeightedVector], unlike: Sequence[WeightedVector]) -> Vector:
    """Combine weighted unit vectors, shape (dim,), into one: towards `like`, away from `unlike`.

    Rocchio, "Relevance feedback in information retrieval" (1971), with the factors 1 and ½.
    """
    total = _average(like)
    if unlike:
        total = total - UNLIKE_WEIGHT * _average(unlike)
    return _normalize(total)


def mean_vector(vectors: Iterable[Vector]) -> Vector:
    """Return the mean direction of unit vectors, shape (dim,), as a unit vector."""
    return _normalize(np.stack(list(vectors)).sum(axis=0, dtype=np.float64))


def _average(weighted: Sequence[WeightedVector]) -> np.ndarray:
    weights = np.array([weight for weight, _ in weighted], dtype=np.float64)
    average: np.ndarray = weights @ np.stack([vector for _, vector in weighted]) / weights.sum()
    return average


def _normalize(total: np.ndarray) -> Vector:
    length = float(np.linalg.norm(total))
    # Opposite vectors cancel out and leave no direction to search in; any direction is as good as another.
    direction: Vector = (total / length if length > 1e-12 else np.eye(1, total.size)[0]).astype(np.float32)
    return direction
