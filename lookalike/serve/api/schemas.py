"""What goes over HTTP, in the words of its JSON: questions, answers, products, problems."""

import binascii
from base64 import b64decode
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from lookalike.schema.errors import BadQuery
from lookalike.schema.filters.json import parse_json_filter
from lookalike.search.query import MAX_LIMIT, MAX_PARTS, MAX_PER_PRODUCT, MAX_REACH, MAX_TEXT, MAX_WEIGHT, Part, Query
from lookalike.serve.api.redaction import reject_location_filters

if TYPE_CHECKING:  # a client needs the words, not numpy and Milvus
    from lookalike.schema.product import Hit
    from lookalike.search.finder import SearchResult

MAX_QUERIES = 100
MAX_IMAGES = 32
MAX_ID = 1_024

Key = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID)]
Words = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=8_192)]


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError("an image is a text in Base64")
    try:
        return b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"this is not Base64: {error}") from None


Coded = Annotated[bytes, BeforeValidator(_decoded), WithJsonSchema({"type": "string", "contentEncoding": "base64"})]
Fetch = Callable[[str], bytes]
"""Gets an image by its URL. Raises BadQuery."""


class StrictModel(BaseModel):
    """Strict: a misspelt field is an error, and "5" is no number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PartIn(StrictModel):
    """One thing to be like, or unlike: exactly one of image, image_url, text, product_id, image_id and vector."""

    image: Coded | None = Field(None, description="An image, in Base64.")
    image_url: Url | None = Field(None, description="Where an image is; only when the service allows fetching.")
    text: Words | None = Field(None, description="Words; only when the collection's encoder knows words.")
    product_id: Key | None = Field(None, description="A product of the collection: the mean of its images.")
    image_id: Key | None = Field(None, description="An image of the collection, by its key.")
    vector: Annotated[list[float], Field(min_length=1, max_length=32_768, fail_fast=True)] | None = Field(
        None, description="An embedding of the collection's encoder; of any length but zero."
    )
    weight: float = Field(1.0, gt=0, le=MAX_WEIGHT, description="How much it counts beside the others.")

    def part(self, fetch: Fetch) -> Part:
        """Make it a part of a question. Raises BadQuery."""
        if self.image_url is None:
            return Part(self.image, self.text, self.product_id, self.image_id, self.vector, self.weight)
        if self.model_fields_set - {"weight"} != {"image_url"}:
            raise BadQuery("a part of a question is one of image, image_url, text, product_id, image_id and vector")
        return Part(image=fetch(self.image_url), weight=self.weight)


Parts = Annotated[list[PartIn], Field(max_length=MAX_PARTS, fail_fast=True)]


class SearchIn(StrictModel):
    """A question. What is named at the top counts as part of `like` with the weight 1."""

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

    image: Coded | None = Field(None, description="An image, in Base64.")
    image_url: Url | None = Field(None, description="Where an image is; only when the service allows fetching.")
    text: Words | None = Field(None, description="Words; only when the collection's encoder knows words.")
    product_id: Key | None = Field(None, description="A product of the collection; it is left out of the answer.")
    image_id: Key | None = Field(None, description="An image of the collection; its product is left out.")
    vector: Annotated[list[float], Field(min_length=1, max_length=32_768, fail_fast=True)] | None = Field(
        None, description="An embedding of the collection's encoder."
    )
    like: Parts = Field([], description="More things to be like, each with a weight.")
    unlike: Parts = Field([], description="Things not to be like.")
    where: dict[str, Any] = Field(
        {},
        description="A filter: columns with what they equal, or with operators (eq, ne, lt, lte, gt, gte, in, not_in, "
        "contains, exists); `and`, `or`, `not` combine.",
    )
    limit: int = Field(10, ge=1, le=MAX_LIMIT, description="How many products.")
    offset: int = Field(0, ge=0, lt=MAX_REACH, description="How many to skip; keep `limit` the same from page to page.")
    min_score: float | None = Field(None, ge=-1, le=1, description="Leave out products below this cosine.")
    within: float | None = Field(None, ge=0, le=2, description="Leave out products this much below the best cosine.")
    per_product: int = Field(1, ge=1, le=MAX_PER_PRODUCT, description="How many images of a product to tell.")
    fields: Annotated[list[str], Field(max_length=100, fail_fast=True)] | None = Field(
        None, description="Columns of the metadata to tell; all without."
    )

    def query(self, fetch: Fetch, images: tuple[Part, ...] = ()) -> Query:
        """Make it a question, with images that were sent beside it. Raises BadQuery and BadFilter."""
        fetched = [] if self.image_url is None else [Part(image=fetch(self.image_url))]
        return Query(
            image=self.image,
            text=self.text,
            product_id=self.product_id,
            image_id=self.image_id,
            vector=self.vector,
            like=(*images, *fetched, *(part.part(fetch) for part in self.like)),
            unlike=tuple(part.part(fetch) for part in self.unlike),
            where=reject_location_filters(parse_json_filter(self.where)),
            limit=self.limit,
            offset=self.offset,
            min_score=self.min_score,
            within=self.within,
            per_product=self.per_product,
            fields=None if self.fields is None else tuple(self.fields),
        )


class BatchIn(StrictModel):
    """Several questions."""

    queries: list[SearchIn] = Field(min_length=1, max_length=MAX_QUERIES, fail_fast=True)


class ImageOut(BaseModel):
    """An image of a product in an answer."""

    image_id: str
    score: float
    url: str = Field(description="Where the image is, on this service.")


class HitOut(BaseModel):
    """A product that answers, with its best image."""

    product_id: str
    score: float = Field(description="The cosine of the product's best image to what is asked, -1 to 1.")
    image_id: str
    url: str = Field(description="Where the image is, on this service.")
    metadata: dict[str, Any]
    images: list[ImageOut] = Field([], description="The best images, when `per_product` asks for more than one.")

    @classmethod
    def of(cls, hit: "Hit") -> "HitOut":
        """Tell a hit; where the file is stays ours."""
        return cls(
            product_id=hit.product_id,
            score=hit.score,
            image_id=hit.image_id,
            url=image_path(hit.image_id),
            metadata=dict(hit.metadata),
            images=[ImageOut(image_id=p.image_id, score=p.score, url=image_path(p.image_id)) for p in hit.images],
        )


class SearchOut(BaseModel):
    """Distinct products, best first."""

    hits: list[HitOut]
    took_ms: float = Field(description="Milliseconds from a question understood to its answer.")
    next_offset: int | None = Field(description="Where the next page starts; null after the last one.")

    @classmethod
    def of(cls, answer: "SearchResult") -> "SearchOut":
        """Tell an answer."""
        hits = [HitOut.of(hit) for hit in answer.hits]
        return cls(hits=hits, took_ms=answer.took_ms, next_offset=answer.next_offset)


class Invalid(BaseModel):
    """One thing that is wrong with a request."""

    at: str = Field(description="Where: a path into the request, such as `queries/0/limit`.")
    detail: str


class Problem(BaseModel):
    """What went wrong, and what to do (RFC 9457, application/problem+json)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str = Field("", description="Names this request in the service's log.")
    errors: list[Invalid] = []


class BatchOut(BaseModel):
    """An answer to each question, in their order; a problem for one that cannot be answered."""

    answers: list[SearchOut | Problem]
    took_ms: float


class StoredImage(BaseModel):
    """An image that the collection holds."""

    image_id: str
    url: str
    source: str
    metadata: dict[str, Any]


class ProductOut(BaseModel):
    """A product that the collection holds."""

    product_id: str
    metadata: dict[str, Any] = Field(description="Of its first image; images may have metadata of their own.")
    images: list[StoredImage]


class ImageIn(StrictModel):
    """An image of a product: the bytes, or where they are."""

    image: Coded | None = Field(None, description="An image, in Base64.")
    image_url: Url | None = Field(None, description="Where an image is; only when the service allows fetching.")


class ProductIn(StrictModel):
    """What a product is from now on. Without `images` it keeps its images and gets other metadata."""

    images: Annotated[list[ImageIn], Field(min_length=1, max_length=MAX_IMAGES, fail_fast=True)] | None = None
    metadata: dict[str, Any] = {}


class WriteOut(BaseModel):
    """What became of a product's images."""

    product_id: str
    new: int
    changed: int
    metadata: int = Field(description="Images that only got other metadata: no forward pass.")
    unchanged: int
    removed: int


def image_path(image_id: str) -> str:
    """Where a stored image is on this service."""
    return f"/images/{image_id}"
