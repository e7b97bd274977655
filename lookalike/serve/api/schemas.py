"""The JSON of requests and responses: queries, results, products, problems."""

import binascii
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from lookalike.schema.errors import BadQuery
from lookalike.schema.filters.json import parse_json_filter
from lookalike.search.query import MAX_LIMIT, MAX_PARTS, MAX_PER_PRODUCT, MAX_REACH, MAX_TEXT, MAX_WEIGHT, Part, Query
from lookalike.serve.api.redaction import reject_location_filters

if TYPE_CHECKING:  # clients import this file, and need neither numpy nor Milvus
    from lookalike.schema.product import Hit
    from lookalike.search.finder import SearchResult

MAX_QUERIES = 100
MAX_IMAGES = 32
MAX_ID = 1_024

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=8_192)]


def _decode_base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError("an image is a string in Base64")
    try:
        return b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not Base64: {error}") from None


Base64Bytes = Annotated[
    bytes, BeforeValidator(_decode_base64), WithJsonSchema({"type": "string", "contentEncoding": "base64"})
]
FetchImage = Callable[[str], bytes]
"""Fetches an image by its URL. Raises BadQuery."""


class StrictModel(BaseModel):
    """A request body. An unknown field is an error, and so is "5" in place of a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PartIn(StrictModel):
    """One example to be like, or unlike: exactly one of image, image_url, text, product_id, image_id and vector."""

    image: Base64Bytes | None = Field(None, description="An image, in Base64.")
    image_url: Url | None = Field(None, description="The URL of an image; only where the service fetches URLs.")
    text: Text | None = Field(None, description="Words; only where the collection's encoder embeds text.")
    product_id: Identifier | None = Field(
        None, description="A product of the collection: the normalised mean of its images."
    )
    image_id: Identifier | None = Field(None, description="A stored image, by its id.")
    vector: Annotated[list[float], Field(min_length=1, max_length=32_768, fail_fast=True)] | None = Field(
        None, description="An embedding of the collection's encoder; any length but zero."
    )
    weight: float = Field(1.0, gt=0, le=MAX_WEIGHT, description="Weight relative to the other parts.")

    def to_part(self, fetch: FetchImage) -> Part:
        """Convert to a part of a query. Raises BadQuery."""
        if self.image_url is None:
            return Part(self.image, self.text, self.product_id, self.image_id, self.vector, self.weight)
        if self.model_fields_set - {"weight"} != {"image_url"}:
            raise BadQuery("a part of a query is one of image, image_url, text, product_id, image_id and vector")
        return Part(image=fetch(self.image_url), weight=self.weight)


Parts = Annotated[list[PartIn], Field(max_length=MAX_PARTS, fail_fast=True)]


class SearchIn(StrictModel):
    """A search query. An image, text, product or vector at the top level is a part of `like` with weight 1."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"product_id": "red-plain-mug", "limit": 5},
                {
                    "like": [{"product_id": "red-plain-mug"}, {"text": "with a handle", "weight": 0.5}],
                    "unlike": [{"product_id": "blue-checked-shirt"}],
                    "where": {"category": {"in": ["mug", "bag"]}, "or": [{"price": {"lt": 50}}, {"sale": True}]},
                    "within": 0.3,
                },
            ]
        }
    )

    image: Base64Bytes | None = Field(None, description="An image, in Base64.")
    image_url: Url | None = Field(None, description="The URL of an image; only where the service fetches URLs.")
    text: Text | None = Field(None, description="Words; only where the collection's encoder embeds text.")
    product_id: Identifier | None = Field(None, description="A product of the collection; the result leaves it out.")
    image_id: Identifier | None = Field(None, description="A stored image; the result leaves its product out.")
    vector: Annotated[list[float], Field(min_length=1, max_length=32_768, fail_fast=True)] | None = Field(
        None, description="An embedding of the collection's encoder."
    )
    like: Parts = Field([], description="More examples to be like, each with a weight.")
    unlike: Parts = Field([], description="Examples not to be like.")
    where: dict[str, Any] = Field(
        {},
        description="A filter: for each column its value, or operators (eq, ne, lt, lte, gt, gte, in, not_in, "
        "contains, exists); `and`, `or` and `not` combine filters.",
    )
    limit: int = Field(10, ge=1, le=MAX_LIMIT, description="The maximum number of products.")
    offset: int = Field(0, ge=0, lt=MAX_REACH, description="Products to skip; keep `limit` the same on every page.")
    min_score: float | None = Field(None, ge=-1, le=1, description="Leave out products with a lower cosine.")
    within: float | None = Field(
        None, ge=0, le=2, description="Leave out products whose cosine is lower than the best one by more than this."
    )
    per_product: int = Field(1, ge=1, le=MAX_PER_PRODUCT, description="How many images of each product to return.")
    fields: Annotated[list[str], Field(max_length=100, fail_fast=True)] | None = Field(
        None, description="Metadata columns to return; all by default."
    )

    def to_query(self, fetch: FetchImage, images: tuple[Part, ...] = ()) -> Query:
        """Convert to a query, with the images that were sent as files. Raises BadQuery and BadFilter."""
        fetched = [] if self.image_url is None else [Part(image=fetch(self.image_url))]
        return Query(
            image=self.image,
            text=self.text,
            product_id=self.product_id,
            image_id=self.image_id,
            vector=self.vector,
            like=(*images, *fetched, *(part.to_part(fetch) for part in self.like)),
            unlike=tuple(part.to_part(fetch) for part in self.unlike),
            where=reject_location_filters(parse_json_filter(self.where)),
            limit=self.limit,
            offset=self.offset,
            min_score=self.min_score,
            within=self.within,
            per_product=self.per_product,
            fields=None if self.fields is None else tuple(self.fields),
        )


class BatchIn(StrictModel):
    """Several queries."""

    queries: list[SearchIn] = Field(min_length=1, max_length=MAX_QUERIES, fail_fast=True)


class ImageOut(BaseModel):
    """An image of a product in a result."""

    image_id: str
    score: float
    url: str = Field(description="The path of the image on this service.")


class HitOut(BaseModel):
    """A product of a result, with its best image."""

    product_id: str
    score: float = Field(description="The cosine of the product's best image and the query, -1 to 1.")
    image_id: str
    url: str = Field(description="The path of the image on this service.")
    metadata: dict[str, Any]
    images: list[ImageOut] = Field([], description="The best images, where `per_product` is more than 1.")

    @classmethod
    def from_hit(cls, hit: "Hit") -> "HitOut":
        """Convert a hit. The location of the image's file is left out."""
        return cls(
            product_id=hit.product_id,
            score=hit.score,
            image_id=hit.image_id,
            url=image_path(hit.image_id),
            metadata=dict(hit.metadata),
            images=[
                ImageOut(image_id=image.image_id, score=image.score, url=image_path(image.image_id))
                for image in hit.images
            ],
        )


class SearchOut(BaseModel):
    """Distinct products, best first."""

    hits: list[HitOut]
    took_ms: float = Field(description="Milliseconds from the parsed query to its result.")
    next_offset: int | None = Field(description="The `offset` of the next page; null after the last one.")

    @classmethod
    def from_result(cls, result: "SearchResult") -> "SearchOut":
        """Convert a result."""
        hits = [HitOut.from_hit(hit) for hit in result.hits]
        return cls(hits=hits, took_ms=result.took_ms, next_offset=result.next_offset)


class FieldError(BaseModel):
    """One error in a request."""

    at: str = Field(description="The path of the field in the request, such as `queries/0/limit`.")
    detail: str


class Problem(BaseModel):
    """What failed and what to do next (RFC 9457, application/problem+json)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str = Field("", description="The id of this request in the service's log.")
    errors: list[FieldError] = []


class BatchOut(BaseModel):
    """The result of each query, in order; a problem for one that failed."""

    results: list[SearchOut | Problem]
    took_ms: float


class StoredImage(BaseModel):
    """A stored image of a product."""

    image_id: str
    url: str
    source: str
    metadata: dict[str, Any]


class ProductOut(BaseModel):
    """A product of the collection."""

    product_id: str
    metadata: dict[str, Any] = Field(description="The metadata of its first image; other images may have their own.")
    images: list[StoredImage]


class ImageIn(StrictModel):
    """An image of a product: its file, or its URL."""

    image: Base64Bytes | None = Field(None, description="An image, in Base64.")
    image_url: Url | None = Field(None, description="The URL of an image; only where the service fetches URLs.")


class ProductIn(StrictModel):
    """What replaces a product. Without `images` it keeps its images and gets the new metadata."""

    images: Annotated[list[ImageIn], Field(min_length=1, max_length=MAX_IMAGES, fail_fast=True)] | None = None
    metadata: dict[str, Any] = {}


class WriteOut(BaseModel):
    """How many images of a product were written, kept and removed."""

    product_id: str
    new: int
    changed: int
    metadata: int = Field(description="Images that only got new metadata, without a forward pass.")
    unchanged: int
    removed: int
    warnings: Annotated[
        list[str], Field(description="Columns whose value is of another type than in the rest of the collection.")
    ] = []


def list_fields(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """List the fields of a body, or of the model at a path in it such as `like/0`."""
    for name in path:
        if name in model.model_fields:
            model = next(_iter_models(model.model_fields[str(name)].annotation), model)
    return list(model.model_fields)


def _iter_models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _iter_models(inner)


def image_path(image_id: str) -> str:
    """Return the path of a stored image on this service."""
    return f"/images/{image_id}"
