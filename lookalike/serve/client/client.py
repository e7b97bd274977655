"""Clients of the service, for blocking code and for asyncio. Both send the requests of `client/requests.py`.

with Client("http://localhost:8000") as client:
    result = client.search(image=Path("mug.jpg"), where={"price": {"lt": 50}}, limit=5)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self, TypedDict, Unpack

import httpx2
from tenacity import AsyncRetrying, Retrying, stop_after_attempt

from lookalike.schema.errors import BadSettings, LookalikeError
from lookalike.serve.api.schemas import Problem, ProductOut, SearchOut, WriteOut
from lookalike.serve.client import requests
from lookalike.serve.client.requests import ImageInput, Request, ResponseType, ServiceError

__all__ = [
    "AsyncClient",
    "Client",
    "Example",
    "ImageInput",
    "SearchRequest",
    "ServiceError",
    "ServiceUnreachable",
    "Size",
    "WeightedExample",
]

Size = Literal[64, 128, 256, 512, 1024]


class Example(TypedDict, total=False):
    """One example to be like, or unlike: one of these fields; `PartIn` in serve/api/schemas.py describes them."""

    image: ImageInput
    image_url: str
    text: str
    product_id: str
    image_id: str
    vector: Sequence[float]


class WeightedExample(Example, total=False):
    """An example with its weight relative to the others."""

    weight: float


class SearchRequest(Example, total=False):
    """A search query; `SearchIn` in serve/api/schemas.py describes its fields."""

    like: Sequence[WeightedExample]
    unlike: Sequence[WeightedExample]
    where: Mapping[str, Any]
    limit: int
    offset: int
    min_score: float
    within: float
    per_product: int
    fields: Sequence[str]


class ServiceUnreachable(LookalikeError):
    """The service did not answer at all.

    Remedy: start it with `lookalike serve`, or correct its URL.
    """


class Client:
    """A client of the service at `base_url`, with the API key `key`. Safe to use from several threads.

    `timeout` is the seconds to connect, and between two bytes of a response. Transient failures (no connection; the
    statuses 429, 503 and 504, after the Retry-After of the service) are retried up to `retries` times. Every method
    raises ServiceError, ServiceUnreachable, and BadQuery for a file that cannot be read.
    """

    def __init__(self, base_url: str, *, key: str | None = None, timeout: float = 30.0, retries: int = 3) -> None:
        self._http = httpx2.Client(base_url=_check_url(base_url), headers=_headers(key), timeout=timeout)
        self._stop = stop_after_attempt(retries + 1)
        self._knows_dry_run = False

    def search(self, **query: Unpack[SearchRequest]) -> SearchOut:
        """Find the products most similar to the query."""
        return self._call(requests.search(query))

    def search_many(self, queries: Sequence[SearchRequest]) -> list[SearchOut | Problem]:
        """Run several queries. One that fails gets a problem in place of its result."""
        return self._call(requests.search_many(queries))

    def similar(self, product_id: str, limit: int = 10, where: Mapping[str, Any] | None = None) -> SearchOut:
        """Find the products most similar to one of the collection."""
        return self._call(requests.similar(product_id, limit, where))

    def get_product(self, product_id: str) -> ProductOut:
        """Get a product's images and metadata."""
        return self._call(requests.get_product(product_id))

    def put_product(
        self,
        product_id: str,
        images: Sequence[ImageInput] | None,
        metadata: Mapping[str, Any],
        *,
        dry_run: bool = False,
    ) -> WriteOut:
        """Replace a product: its metadata, and its images unless they are None. `dry_run` only counts."""
        if dry_run:
            self._check_dry_run()
        return self._call(requests.put_product(product_id, images, metadata, dry_run=dry_run))

    def delete_product(self, product_id: str, *, dry_run: bool = False) -> WriteOut | None:
        """Remove a product. `dry_run` only counts: it returns what would be removed.

        A 404 may also mean that an earlier try removed the product and its response was lost.
        """
        if dry_run:
            self._check_dry_run()
            return self._call(requests.plan_deletion(product_id))
        self._call(requests.delete_product(product_id))
        return None

    def get_image(self, image_id: str, size: Size | None = None) -> bytes:
        """Get a stored image, as it is or with no edge longer than `size`."""
        return self._call(requests.get_image(image_id, size))

    def is_ready(self) -> bool:
        """Whether the service can search."""
        return self._call(requests.ready())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_dry_run(self) -> None:
        if not self._knows_dry_run:
            self._call(requests.check_dry_run())
            self._knows_dry_run = True

    def _call(self, request: Request[ResponseType]) -> ResponseType:
        with _map_transport_errors(self._http.base_url):
            retrying = Retrying(
                retry=requests.should_retry, wait=requests.wait_before_retry, stop=self._stop, reraise=True
            )
            result: ResponseType = retrying(self._send, request)
            return result

    def _send(self, request: Request[ResponseType]) -> ResponseType:
        return request.read(self._http.request(request.method, request.path, **request.options))


class AsyncClient:
    """A client for asyncio, with the methods of `Client`."""

    def __init__(self, base_url: str, *, key: str | None = None, timeout: float = 30.0, retries: int = 3) -> None:
        self._http = httpx2.AsyncClient(base_url=_check_url(base_url), headers=_headers(key), timeout=timeout)
        self._stop = stop_after_attempt(retries + 1)
        self._knows_dry_run = False

    async def search(self, **query: Unpack[SearchRequest]) -> SearchOut:
        """Find the products most similar to the query."""
        return await self._call(requests.search(query))

    async def search_many(self, queries: Sequence[SearchRequest]) -> list[SearchOut | Problem]:
        """Run several queries. One that fails gets a problem in place of its result."""
        return await self._call(requests.search_many(queries))

    async def similar(self, product_id: str, limit: int = 10, where: Mapping[str, Any] | None = None) -> SearchOut:
        """Find the products most similar to one of the collection."""
        return await self._call(requests.similar(product_id, limit, where))

    async def get_product(self, product_id: str) -> ProductOut:
        """Get a product's images and metadata."""
        return await self._call(requests.get_product(product_id))

    async def put_product(
        self,
        product_id: str,
        images: Sequence[ImageInput] | None,
        metadata: Mapping[str, Any],
        *,
        dry_run: bool = False,
    ) -> WriteOut:
        """Replace a product: its metadata, and its images unless they are None. `dry_run` only counts."""
        if dry_run:
            await self._check_dry_run()
        return await self._call(requests.put_product(product_id, images, metadata, dry_run=dry_run))

    async def delete_product(self, product_id: str, *, dry_run: bool = False) -> WriteOut | None:
        """Remove a product. `dry_run` only counts: it returns what would be removed.

        A 404 may also mean that an earlier try removed the product and its response was lost.
        """
        if dry_run:
            await self._check_dry_run()
            return await self._call(requests.plan_deletion(product_id))
        await self._call(requests.delete_product(product_id))
        return None

    async def get_image(self, image_id: str, size: Size | None = None) -> bytes:
        """Get a stored image, as it is or with no edge longer than `size`."""
        return await self._call(requests.get_image(image_id, size))

    async def is_ready(self) -> bool:
        """Whether the service can search."""
        return await self._call(requests.ready())

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _check_dry_run(self) -> None:
        if not self._knows_dry_run:
            await self._call(requests.check_dry_run())
            self._knows_dry_run = True

    async def _call(self, request: Request[ResponseType]) -> ResponseType:
        with _map_transport_errors(self._http.base_url):
            retrying = AsyncRetrying(
                retry=requests.should_retry, wait=requests.wait_before_retry, stop=self._stop, reraise=True
            )
            return await retrying(self._send, request)

    async def _send(self, request: Request[ResponseType]) -> ResponseType:
        return request.read(await self._http.request(request.method, request.path, **request.options))


@contextmanager
def _map_transport_errors(address: httpx2.URL) -> Iterator[None]:
    """Raise ServiceUnreachable for the transport errors of httpx."""
    try:
        yield
    except httpx2.TransportError as error:
        raise ServiceUnreachable(
            f"the service at {address} does not answer ({str(error) or type(error).__name__}). Is it running, "
            "and is the address right? A busy service needs a longer timeout"
        ) from error


def _check_url(base_url: str) -> str:
    if not base_url.startswith(("http://", "https://")):
        raise BadSettings(f"the address {base_url!r} is no http:// or https:// URL; use one like http://localhost:8000")
    return base_url


def _headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}
