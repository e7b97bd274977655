"""Clients of the service, for blocking code and for asyncio: both only send what the functions below make and read.

with Client("http://localhost:8000") as client:
found = client.search(image=Path("mug.jpg"), where={"price": {"lt": 50}}, limit=5)
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError
from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.retry import retry_base
from tenacity.stop import stop_base
from tenacity.wait import wait_random_exponential

from schema.errors import BadQuery, BadSettings, LookalikeError
from serve.messages import BatchOut, Problem, ProductOut, SearchOut, Written

Picture = bytes | Path
"""A picture as it is in its file, or that file."""

Size = Literal[64, 128, 256, 512, 1024]

_RETRIED = (429, 503, 504)
_LONGEST_WAIT = 60.0
"""Seconds: a service that asks for more is not waited for."""

_backoff = wait_random_exponential(multiplier=0.5, max=10)


class Example(TypedDict, total=False):
    """One thing to be like, or unlike: one of these, as PartIn in serve/messages.py describes them."""

    image: Picture
    image_url: str
    text: str
    product_id: str
    image_id: str
    vector: Sequence[float]


class Weighted(Example, total=False):
    """The same beside others, with how much it counts."""

    weight: float


class Question(Example, total=False):
    """What may be asked, as SearchIn in serve/messages.py describes it."""

    like: Sequence[Weighted]
    unlike: Sequence[Weighted]
    where: Mapping[str, Any]
    limit: int
    offset: int
    min_score: float
    within: float
    per_product: int
    fields: Sequence[str]


class ServiceError(LookalikeError):
    """The service has answered, but not what was asked for: `problem` says why."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        wrong = "".join(f"; {one.at}: {one.detail}" for one in problem.errors)
        named = f" (request {problem.request_id})" if problem.request_id else ""
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}{wrong}{named}")
        self.problem = problem
        self.retry_after = retry_after
        """Seconds that the service asks to wait before the next try."""


class ServiceUnreachable(LookalikeError):
    """There was no answer at all."""


Answer = TypeVar("Answer")
Message = TypeVar("Message", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class _Call(Generic[Answer]):
    """A request, and how its answer is understood. All may be sent again: none does more the second time."""

    method: str
    path: str
    read: Callable[[httpx2.Response], Answer]
    options: dict[str, Any] = field(default_factory=dict)


class Client:
    """Asks a service at `base_url`, with the API key `key`; safe to use from several threads.

    `timeout` is seconds to connect, and between two bytes of an answer. What failed for a moment (no connection; 429,
    503 and 504, after the time that the service names) is sent again up to `retries` times. Every method raises
    ServiceError, ServiceUnreachable, and BadQuery for a file that cannot be read.
    """

    def __init__(self, base_url: str, *, key: str | None = None, timeout: float = 30.0, retries: int = 3) -> None:
        self._http = httpx2.Client(base_url=_address(base_url), headers=_headers(key), timeout=timeout)
        self._attempts = retries + 1

    def search(self, **question: Unpack[Question]) -> SearchOut:
        """Find the products most like what is asked."""
        return self._ask(_search(question))

    def search_many(self, questions: Sequence[Question]) -> list[SearchOut | Problem]:
        """Answer several questions; one that cannot be answered gets its problem instead."""
        return self._ask(_search_many(questions))

    def similar(self, product_id: str, limit: int = 10, where: Mapping[str, Any] | None = None) -> SearchOut:
        """Find the products most like one of the collection."""
        return self._ask(_similar(product_id, limit, where))

    def get_product(self, product_id: str) -> ProductOut:
        """Tell a product's pictures and metadata."""
        return self._ask(_get_product(product_id))

    def put_product(self, product_id: str, images: Sequence[Picture] | None, metadata: Mapping[str, Any]) -> Written:
        """Make a product what is said: with these pictures, or with None those that it has."""
        return self._ask(_put_product(product_id, images, metadata))

    def delete_product(self, product_id: str) -> None:
        """Remove a product. Where it is not there, or was removed by a try whose answer got lost, that is a 404."""
        return self._ask(_delete_product(product_id))

    def image(self, image_id: str, size: Size | None = None) -> bytes:
        """Get a stored picture, as it is or with no edge longer than `size`."""
        return self._ask(_image(image_id, size))

    def ready(self) -> bool:
        """Tell whether the service answers questions."""
        return self._ask(_ready())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, call: _Call[Answer]) -> Answer:
        with _reaching(self._http.base_url):
            answer: Answer = Retrying(**_retried(self._attempts))(self._send, call)
            return answer

    def _send(self, call: _Call[Answer]) -> Answer:
        return call.read(self._http.request(call.method, call.path, **call.options))


class AsyncClient:
    """The same for asyncio."""

    def __init__(self, base_url: str, *, key: str | None = None, timeout: float = 30.0, retries: int = 3) -> None:
        self._http = httpx2.AsyncClient(base_url=_address(base_url), headers=_headers(key), timeout=timeout)
        self._attempts = retries + 1

    async def search(self, **question: Unpack[Question]) -> SearchOut:
        """Find the products most like what is asked."""
        return await self._ask(_search(question))

    async def search_many(self, questions: Sequence[Question]) -> list[SearchOut | Problem]:
        """Answer several questions; one that cannot be answered gets its problem instead."""
        return await self._ask(_search_many(questions))

    async def similar(self, product_id: str, limit: int = 10, where: Mapping[str, Any] | None = None) -> SearchOut:
        """Find the products most like one of the collection."""
        return await self._ask(_similar(product_id, limit, where))

    async def get_product(self, product_id: str) -> ProductOut:
        """Tell a product's pictures and metadata."""
        return await self._ask(_get_product(product_id))

    async def put_product(
        self, product_id: str, images: Sequence[Picture] | None, metadata: Mapping[str, Any]
    ) -> Written:
        """Make a product what is said: with these pictures, or with None those that it has."""
        return await self._ask(_put_product(product_id, images, metadata))

    async def delete_product(self, product_id: str) -> None:
        """Remove a product. Where it is not there, or was removed by a try whose answer got lost, that is a 404."""
        return await self._ask(_delete_product(product_id))

    async def image(self, image_id: str, size: Size | None = None) -> bytes:
        """Get a stored picture, as it is or with no edge longer than `size`."""
        return await self._ask(_image(image_id, size))

    async def ready(self) -> bool:
        """Tell whether the service answers questions."""
        return await self._ask(_ready())

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, call: _Call[Answer]) -> Answer:
        with _reaching(self._http.base_url):
            return await AsyncRetrying(**_retried(self._attempts))(self._send, call)

    async def _send(self, call: _Call[Answer]) -> Answer:
        return call.read(await self._http.request(call.method, call.path, **call.options))


def _search(question: Question) -> _Call[SearchOut]:
    asked: dict[str, Any] = {**question}
    picture = asked.pop("image", None)
    return _Call("POST", "/search", _as(SearchOut), _body("question", asked, [] if picture is None else [picture]))


def _search_many(questions: Sequence[Question]) -> _Call[list[SearchOut | Problem]]:
    read = _as(BatchOut)
    return _Call("POST", "/search/batch", lambda response: read(response).answers, _body("", {"queries": questions}))


def _similar(product_id: str, limit: int, where: Mapping[str, Any] | None) -> _Call[SearchOut]:
    filtered = {"where": json.dumps(where)} if where else {}
    path = f"/products/{_in_path(product_id)}/similar"
    return _Call("GET", path, _as(SearchOut), {"params": {"limit": limit, **filtered}})


def _get_product(product_id: str) -> _Call[ProductOut]:
    return _Call("GET", f"/products/{_in_path(product_id)}", _as(ProductOut))


def _put_product(product_id: str, images: Sequence[Picture] | None, metadata: Mapping[str, Any]) -> _Call[Written]:
    # No pictures is not the same as those that it has: the service refuses an empty list.
    none: dict[str, Any] = {"images": []} if images is not None and not images else {}
    body = _body("product", {"metadata": metadata, **none}, images or ())
    return _Call("PUT", f"/products/{_in_path(product_id)}", _as(Written), body)


def _delete_product(product_id: str) -> _Call[None]:
    return _Call("DELETE", f"/products/{_in_path(product_id)}", _check)


def _image(image_id: str, size: Size | None) -> _Call[bytes]:
    params = {} if size is None else {"size": str(size)}
    return _Call("GET", f"/images/{_in_path(image_id)}", _content, {"params": params})


def _ready() -> _Call[bool]:
    return _Call("GET", "/ready", _is_ready)


def _body(name: str, told: Mapping[str, Any], pictures: Sequence[Picture] = ()) -> dict[str, Any]:
    """JSON; with pictures a form, where it stands in the field `name`: files are a quarter smaller than Base64."""
    text = json.dumps(told, default=_as_json)
    if not pictures:
        return {"content": text, "headers": {"Content-Type": "application/json"}}
    return {"data": {name: text}, "files": [("image", _bytes(picture)) for picture in pictures]}


def _as_json(value: object) -> object:
    if isinstance(value, bytes | Path):
        return base64.b64encode(_bytes(value)).decode()
    if callable(to_list := getattr(value, "tolist", None)):  # a vector from numpy
        return to_list()
    raise BadQuery(f"{value!r} cannot be sent: {type(value).__name__} is not known to JSON")


def _bytes(picture: Picture) -> bytes:
    if isinstance(picture, bytes):
        return picture
    try:
        return picture.read_bytes()
    except OSError as error:
        raise BadQuery(f"the picture {str(picture)!r} cannot be read: {error.strerror}") from error


def _in_path(name: str) -> str:
    # Slashes and dots too: products/a/../b would be another product, or none.
    return quote(name, safe="", errors="surrogatepass").replace(".", "%2E")


def _as(kind: type[Message]) -> Callable[[httpx2.Response], Message]:
    def read(response: httpx2.Response) -> Message:
        try:
            return kind.model_validate_json(_content(response))
        except ValidationError as error:
            detail = f"{response.url} has not answered as lookalike does; is the address right?"
            raise ServiceError(_problem(response, detail)) from error

    return read


def _content(response: httpx2.Response) -> bytes:
    _check(response)
    return response.content


def _is_ready(response: httpx2.Response) -> bool:
    if response.status_code == 503:
        return False
    _check(response)
    return True


def _check(response: httpx2.Response) -> None:
    """Raise ServiceError unless it went well."""
    if response.is_success:
        return
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:  # from something between us and the service
        problem = _problem(response, f"{response.url} answered: {response.text[:200].strip() or 'nothing'}")
    after = response.headers.get("Retry-After", "")
    raise ServiceError(problem, float(after) if after.isdecimal() else None)


def _problem(response: httpx2.Response, detail: str) -> Problem:
    name = response.headers.get("X-Request-ID", "")
    return Problem(title=response.reason_phrase, status=response.status_code, detail=detail, request_id=name)


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


class _Retried(TypedDict):
    retry: retry_base
    wait: Callable[[RetryCallState], float]
    stop: stop_base
    reraise: bool


def _retried(attempts: int) -> _Retried:
    return {
        "retry": retry_if_exception(_may_pass),
        "wait": _wait,
        "stop": stop_after_attempt(attempts),
        "reraise": True,
    }


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, ServiceError):
        return error.problem.status in _RETRIED and (error.retry_after or 0) <= _LONGEST_WAIT
    # Who was not answered in time would only add to what the service has to do.
    return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout)


def _wait(state: RetryCallState) -> float:
    """At least what the service asks for, and never all clients at once."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, ServiceError) else None
    return (asked or 0.0) + _backoff(state)


def _address(base_url: str) -> str:
    if not base_url.startswith(("http://", "https://")):
        raise BadSettings(
            f"the address {base_url!r} is no http:// or https:// URL; take one like http://localhost:8000"
        )
    return base_url


def _headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}
