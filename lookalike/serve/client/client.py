"""Clients of the service, for blocking code and for asyncio: both send what serve/client/requests.py makes and reads.

with Client("http://localhost:8000") as client:
    found = client.search(image=Path("mug.jpg"), where={"price": {"lt": 50}}, limit=5)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self, TypedDict, Unpack

import httpx2
from tenacity import AsyncRetrying, Retrying, stop_after_attempt

from lookalike.schema.errors import BadSettings, LookalikeError
from lookalike.serve.api.schemas import Problem, ProductOut, SearchOut, WriteOut
from lookalike.serve.client import requests as calls
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
    """One thing to be like, or unlike: one of these, as PartIn in serve/api/schemas.py describes them."""

    image: ImageInput
    image_url: str
    text: str
    product_id: str
    image_id: str
    vector: Sequence[float]


class WeightedExample(Example, total=False):
    """The same beside others, with how much it counts."""

    weight: float


class SearchRequest(Example, total=False):
    """What may be asked, as SearchIn in serve/api/schemas.py describes it."""

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
    """There was no answer at all."""


class Client:
    """Asks a service at `base_url`, with the API key `key`; safe to use from several threads.

    `timeout` is seconds to connect, and between two bytes of an answer. What failed for a moment (no connection; 429,
    503 and 504, after the time that the service names) is sent again up to `retries` times. Every method raises
    ServiceError, ServiceUnreachable, and BadQuery for a file that cannot be read.
    """

    def __init__(self, base_url: str, *, key: str | None = None, timeout: float = 30.0, retries: int = 3) -> None:
        self._http = httpx2.Client(base_url=_address(base_url), headers=_headers(key), timeout=timeout)
        self._stop = stop_after_attempt(retries + 1)

    def search(self, **question: Unpack[SearchRequest]) -> SearchOut:
        """Find the products most like what is asked."""
        return self._ask(calls.search(question))

    def search_many(self, questions: Sequence[SearchRequest]) -> list[SearchOut | Problem]:
        """Answer several questions; one that cannot be answered gets its problem instead."""
        return self._ask(calls.search_many(questions))

    def similar(self, product_id: str, limit: int = 10, where: Mapping[str, Any] | None = None) -> SearchOut:
        """Find the products most like one of the collection."""
        return self._ask(calls.similar(product_id, limit, where))

    def get_product(self, product_id: str) -> ProductOut:
        """Tell a product's images and metadata."""
        return self._ask(calls.get_product(product_id))

    def put_product(
        self, product_id: str, images: Sequence[ImageInput] | None, metadata: Mapping[str, Any]
    ) -> WriteOut:
        """Make a product what is said: with these images, or with None those that it has."""
        return self._ask(calls.put_product(product_id, images, metadata))

    def delete_product(self, product_id: str) -> None:
        """Remove a product. Where it is not there, or was removed by a try whose answer got lost, that is a 404."""
        return self._ask(calls.delete_product(product_id))

    def image(self, image_id: str, size: Size | None = None) -> bytes:
        """Get a stored image, as it is or with no edge longer than `size`."""
        return self._ask(calls.image(image_id, size))

    def ready(self) -> bool:
        """Tell whether the service answers questions."""
        return self._ask(calls.ready())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, call: Request[ResponseType]) -> ResponseType:
        with _reaching(self._http.base_url):
            retrying = Retrying(retry=calls.may_pass, wait=calls.wait, stop=self._stop, reraise=True)
            answer: ResponseType = retrying(self._send, call)
            return answer

    def _send(self, call: Request[ResponseType]) -> ResponseType:
        return call.read(self._http.request(call.method, call.path, **call.options))


class AsyncClient:
    """The same for asyncio."""

    def __init__(self, base_url: str, *, key: str | None = None, timeout: float = 30.0, retries: int = 3) -> None:
        self._http = httpx2.AsyncClient(base_url=_address(base_url), headers=_headers(key), timeout=timeout)
        self._stop = stop_after_attempt(retries + 1)

    async def search(self, **question: Unpack[SearchRequest]) -> SearchOut:
        """Find the products most like what is asked."""
        return await self._ask(calls.search(question))

    async def search_many(self, questions: Sequence[SearchRequest]) -> list[SearchOut | Problem]:
        """Answer several questions; one that cannot be answered gets its problem instead."""
        return await self._ask(calls.search_many(questions))

    async def similar(self, product_id: str, limit: int = 10, where: Mapping[str, Any] | None = None) -> SearchOut:
        """Find the products most like one of the collection."""
        return await self._ask(calls.similar(product_id, limit, where))

    async def get_product(self, product_id: str) -> ProductOut:
        """Tell a product's images and metadata."""
        return await self._ask(calls.get_product(product_id))

    async def put_product(
        self, product_id: str, images: Sequence[ImageInput] | None, metadata: Mapping[str, Any]
    ) -> WriteOut:
        """Make a product what is said: with these images, or with None those that it has."""
        return await self._ask(calls.put_product(product_id, images, metadata))

    async def delete_product(self, product_id: str) -> None:
        """Remove a product. Where it is not there, or was removed by a try whose answer got lost, that is a 404."""
        return await self._ask(calls.delete_product(product_id))

    async def image(self, image_id: str, size: Size | None = None) -> bytes:
        """Get a stored image, as it is or with no edge longer than `size`."""
        return await self._ask(calls.image(image_id, size))

    async def ready(self) -> bool:
        """Tell whether the service answers questions."""
        return await self._ask(calls.ready())

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, call: Request[ResponseType]) -> ResponseType:
        with _reaching(self._http.base_url):
            retrying = AsyncRetrying(retry=calls.may_pass, wait=calls.wait, stop=self._stop, reraise=True)
            return await retrying(self._send, call)

    async def _send(self, call: Request[ResponseType]) -> ResponseType:
        return call.read(await self._http.request(call.method, call.path, **call.options))


@contextmanager
def _reaching(address: httpx2.URL) -> Iterator[None]:
    """Say in our words that there was no answer."""
    try:
        yield
    except httpx2.TransportError as error:
        raise ServiceUnreachable(
            f"the service at {address} does not answer ({str(error) or type(error).__name__}). Is `lookalike serve` "
            "running, and is the address right? A busy one needs a longer timeout"
        ) from error


def _address(base_url: str) -> str:
    if not base_url.startswith(("http://", "https://")):
        raise BadSettings(
            f"the address {base_url!r} is no http:// or https:// URL; take one like http://localhost:8000"
        )
    return base_url


def _headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}
