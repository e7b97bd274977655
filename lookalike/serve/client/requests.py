"""The requests of the API: how each is sent, how its response is read, and when it is sent again."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypedDict, TypeVar, runtime_checkable
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError
from tenacity import RetryCallState, retry_if_exception
from tenacity.wait import wait_random_exponential

from lookalike.schema.errors import BadQuery, LookalikeError
from lookalike.serve.api.schemas import BatchOut, Problem, ProductOut, SearchOut, WriteOut

ImageInput = bytes | Path
"""The bytes of an image file, or its path."""

_RETRIED_STATUSES = (429, 503, 504)
_MAX_RETRY_AFTER = 60.0
"""Seconds. A service that asks for a longer wait is not tried again."""

_backoff = wait_random_exponential(multiplier=0.5, max=10)


class ServiceError(LookalikeError):
    """The service answered with an error: `problem` says which.

    Remedy: correct what the problem names; its request id finds the line in the log of the service.
    """

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        errors = "".join(f"; {error.at}: {error.detail}" for error in problem.errors)
        request_id = f" (request {problem.request_id})" if problem.request_id else ""
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}{errors}{request_id}")
        self.problem = problem
        self.retry_after = retry_after
        """Seconds that the service asks to wait before the next try."""


ResponseType = TypeVar("ResponseType")
Message = TypeVar("Message", bound=BaseModel)


class RequestOptions(TypedDict, total=False):
    """The arguments of httpx's `request` that our requests use."""

    params: dict[str, str | int]
    headers: dict[str, str]
    content: str
    data: dict[str, str]
    files: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Request(Generic[ResponseType]):
    """A request, and how its response is read. Each is idempotent, so that it can be sent again."""

    method: str
    path: str
    read: Callable[[httpx2.Response], ResponseType]
    options: RequestOptions = field(default_factory=RequestOptions)


def search(query: Mapping[str, Any]) -> Request[SearchOut]:
    """Search. An image at the top level of the query is sent as a file."""
    fields = {**query}
    image = fields.pop("image", None)
    return Request("POST", "/search", _parse_as(SearchOut), _body("query", fields, [] if image is None else [image]))


def search_many(queries: Sequence[Mapping[str, Any]]) -> Request[list[SearchOut | Problem]]:
    """Run several queries."""
    parse = _parse_as(BatchOut)
    return Request("POST", "/search/batch", lambda response: parse(response).results, _json_body({"queries": queries}))


def similar(product_id: str, limit: int, where: Mapping[str, Any] | None) -> Request[SearchOut]:
    """Find the products most similar to one of the collection."""
    params: dict[str, str | int] = {"limit": limit}
    if where:
        params["where"] = json.dumps(where)
    return Request("GET", f"/products/{_quote(product_id)}/similar", _parse_as(SearchOut), {"params": params})


def get_product(product_id: str) -> Request[ProductOut]:
    """Get a product's images and metadata."""
    return Request("GET", f"/products/{_quote(product_id)}", _parse_as(ProductOut))


def put_product(
    product_id: str, images: Sequence[ImageInput] | None, metadata: Mapping[str, Any], *, dry_run: bool
) -> Request[WriteOut]:
    """Replace a product; None keeps the images that it has."""
    fields: dict[str, Any] = {"metadata": metadata}
    if images is not None and not images:
        # An empty list must not read as None. It is sent, and the service refuses it.
        fields["images"] = []
    options: RequestOptions = {**_body("product", fields, images or ()), **_dry_run(dry_run)}
    return Request("PUT", f"/products/{_quote(product_id)}", _parse_as(WriteOut), options)


def delete_product(product_id: str) -> Request[None]:
    """Remove a product."""
    return Request("DELETE", f"/products/{_quote(product_id)}", _check)


def plan_deletion(product_id: str) -> Request[WriteOut]:
    """Count what deleting a product would remove."""
    return Request("DELETE", f"/products/{_quote(product_id)}", _parse_as(WriteOut), _dry_run(True))


def check_dry_run() -> Request[None]:
    """Check that the service knows dry runs: an older one would ignore `dry_run`, and write."""
    return Request("GET", "/openapi.json", _require_dry_run)


def get_image(image_id: str, size: int | None) -> Request[bytes]:
    """Get a stored image."""
    params: dict[str, str | int] = {} if size is None else {"size": size}
    return Request("GET", f"/images/{_quote(image_id)}", _read_content, {"params": params})


def ready() -> Request[bool]:
    """Check whether the service can search."""
    return Request("GET", "/ready", _read_readiness)


def _dry_run(dry_run: bool) -> RequestOptions:
    return {"params": {"dry_run": "true"}} if dry_run else {}


def _body(json_field: str, fields: Mapping[str, Any], images: Sequence[ImageInput]) -> RequestOptions:
    """Make a JSON body or, with images, a form that holds the JSON in one field: Base64 would be a third larger."""
    if not images:
        return _json_body(fields)
    return {"data": {json_field: _to_json(fields)}, "files": [("image", _read_image(image)) for image in images]}


def _json_body(fields: Mapping[str, Any]) -> RequestOptions:
    return {"content": _to_json(fields), "headers": {"Content-Type": "application/json"}}


def _to_json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, default=_convert)


@runtime_checkable
class _Array(Protocol):
    """A numpy array or a torch tensor."""

    def tolist(self) -> object: ...


def _convert(value: object) -> object:
    if isinstance(value, bytes | Path):
        return base64.b64encode(_read_image(value)).decode()
    if isinstance(value, _Array):
        return value.tolist()
    raise BadQuery(f"{value!r} cannot be sent: {type(value).__name__} is not known to JSON")


def _read_image(image: ImageInput) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return image.read_bytes()
    except OSError as error:
        raise BadQuery(f"the image {str(image)!r} cannot be read: {error.strerror}") from error


def _quote(name: str) -> str:
    # Slashes and dots too: products/a/../b would be another path.
    return quote(name, safe="", errors="surrogatepass").replace(".", "%2E")


def _parse_as(model: type[Message]) -> Callable[[httpx2.Response], Message]:
    def parse(response: httpx2.Response) -> Message:
        try:
            return model.model_validate_json(_read_content(response))
        except ValidationError as error:
            detail = f"{response.url} did not send a response of lookalike; is the address right?"
            raise ServiceError(_make_problem(response, detail)) from error

    return parse


def _read_content(response: httpx2.Response) -> bytes:
    _check(response)
    return response.content


def _read_readiness(response: httpx2.Response) -> bool:
    if response.status_code == 503:
        return False
    _check(response)
    return True


def _require_dry_run(response: httpx2.Response) -> None:
    if b'"dry_run"' not in _read_content(response):
        detail = f"the service at {response.url.host} is of an older version and knows no dry run; nothing was sent"
        raise ServiceError(_make_problem(response, detail))


def _check(response: httpx2.Response) -> None:
    """Raise ServiceError unless the status is a success."""
    if response.is_success:
        return
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:  # from a proxy between us and the service
        problem = _make_problem(response, f"{response.url} answered: {response.text[:200].strip() or 'nothing'}")
    after = response.headers.get("Retry-After", "")
    raise ServiceError(problem, float(after) if after.isdecimal() else None)


def _make_problem(response: httpx2.Response, detail: str) -> Problem:
    request_id = response.headers.get("X-Request-ID", "")
    return Problem(title=response.reason_phrase, status=response.status_code, detail=detail, request_id=request_id)


@retry_if_exception
def should_retry(error: BaseException) -> bool:
    """Whether a failed request may succeed when it is sent again."""
    if isinstance(error, ServiceError):
        return error.problem.status in _RETRIED_STATUSES and (error.retry_after or 0) <= _MAX_RETRY_AFTER
    # After a timeout, another request would only add to the load of a slow service.
    return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout)


def wait_before_retry(state: RetryCallState) -> float:
    """Return the seconds until the next try: what the service asks for, plus a random time so that clients spread."""
    error = state.outcome.exception() if state.outcome else None
    retry_after = error.retry_after if isinstance(error, ServiceError) else None
    return (retry_after or 0.0) + _backoff(state)
