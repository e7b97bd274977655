"""The calls of the service: how each is asked, how its answer is read, and when it is asked again."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError
from tenacity import RetryCallState, retry_if_exception
from tenacity.wait import wait_random_exponential

from lookalike.schema.errors import BadQuery, LookalikeError
from lookalike.serve.api.schemas import BatchOut, Problem, ProductOut, SearchOut, WriteOut

ImageInput = bytes | Path
"""An image as it is in its file, or that file."""

_RETRIED = (429, 503, 504)
_LONGEST_WAIT = 60.0
"""Seconds: a service that asks for more is not waited for."""

_backoff = wait_random_exponential(multiplier=0.5, max=10)


class ServiceError(LookalikeError):
    """The service has answered, but not what was asked for: `problem` says why."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        wrong = "".join(f"; {one.at}: {one.detail}" for one in problem.errors)
        named = f" (request {problem.request_id})" if problem.request_id else ""
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}{wrong}{named}")
        self.problem = problem
        self.retry_after = retry_after
        """Seconds that the service asks to wait before the next try."""


ResponseType = TypeVar("ResponseType")
Message = TypeVar("Message", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Request(Generic[ResponseType]):
    """A request, and how its answer is understood. All may be sent again: none does more the second time."""

    method: str
    path: str
    read: Callable[[httpx2.Response], ResponseType]
    options: dict[str, Any] = field(default_factory=dict)


def search(question: Mapping[str, Any]) -> Request[SearchOut]:
    """Find the products most like what is asked; an image at its top goes as a file."""
    asked: dict[str, Any] = {**question}
    sent_image = asked.pop("image", None)
    return Request(
        "POST", "/search", _as(SearchOut), _body("question", asked, [] if sent_image is None else [sent_image])
    )


def search_many(questions: Sequence[Mapping[str, Any]]) -> Request[list[SearchOut | Problem]]:
    """Answer several questions."""
    read = _as(BatchOut)
    return Request("POST", "/search/batch", lambda response: read(response).answers, _body("", {"queries": questions}))


def similar(product_id: str, limit: int, where: Mapping[str, Any] | None) -> Request[SearchOut]:
    """Find the products most like one."""
    filtered = {"where": json.dumps(where)} if where else {}
    path = f"/products/{_in_path(product_id)}/similar"
    return Request("GET", path, _as(SearchOut), {"params": {"limit": limit, **filtered}})


def get_product(product_id: str) -> Request[ProductOut]:
    """Tell a product's images and metadata."""
    return Request("GET", f"/products/{_in_path(product_id)}", _as(ProductOut))


def put_product(product_id: str, images: Sequence[ImageInput] | None, metadata: Mapping[str, Any]) -> Request[WriteOut]:
    """Make a product what is said."""
    # No images is not the same as those that it has: the service refuses an empty list.
    none: dict[str, Any] = {"images": []} if images is not None and not images else {}
    body = _body("product", {"metadata": metadata, **none}, images or ())
    return Request("PUT", f"/products/{_in_path(product_id)}", _as(WriteOut), body)


def delete_product(product_id: str) -> Request[None]:
    """Remove a product."""
    return Request("DELETE", f"/products/{_in_path(product_id)}", _check)


def image(image_id: str, size: int | None) -> Request[bytes]:
    """Get a stored image."""
    params = {} if size is None else {"size": size}
    return Request("GET", f"/images/{_in_path(image_id)}", _content, {"params": params})


def ready() -> Request[bool]:
    """Tell whether questions are answered."""
    return Request("GET", "/ready", _is_ready)


def _body(name: str, told: Mapping[str, Any], images: Sequence[ImageInput] = ()) -> dict[str, Any]:
    """JSON; with images a form, where it stands in the field `name`: files are a quarter smaller than Base64."""
    text = json.dumps(told, default=_as_json)
    if not images:
        return {"content": text, "headers": {"Content-Type": "application/json"}}
    return {"data": {name: text}, "files": [("image", _bytes(picture)) for picture in images]}


def _as_json(value: object) -> object:
    if isinstance(value, bytes | Path):
        return base64.b64encode(_bytes(value)).decode()
    if callable(to_list := getattr(value, "tolist", None)):  # a vector from numpy
        return to_list()
    raise BadQuery(f"{value!r} cannot be sent: {type(value).__name__} is not known to JSON")


def _bytes(image: ImageInput) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return image.read_bytes()
    except OSError as error:
        raise BadQuery(f"the image {str(image)!r} cannot be read: {error.strerror}") from error


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


@retry_if_exception
def may_pass(error: BaseException) -> bool:
    """Whether what failed may go well when it is sent again."""
    if isinstance(error, ServiceError):
        return error.problem.status in _RETRIED and (error.retry_after or 0) <= _LONGEST_WAIT
    # Who was not answered in time would only add to what the service has to do.
    return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout)


def wait(state: RetryCallState) -> float:
    """Seconds until the next try: at least what the service asks for, and never all clients at once."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, ServiceError) else None
    return (asked or 0.0) + _backoff(state)
