"""What went wrong, as HTTP tells it: RFC 9457 problem details, by one table from our errors to statuses."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from lookalike.schema.errors import (
    AlreadyRunning,
    BadFilter,
    BadImage,
    BadQuery,
    BadRow,
    DiskFull,
    EncoderMismatch,
    EncoderUnavailable,
    LookalikeError,
    StoreUnavailable,
    UnknownProduct,
)
from lookalike.serve.api.schemas import Invalid, Problem
from lookalike.serve.runtime.deadline import DeadlineExceeded

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2
_MOST_MISTAKES = 1_000
_SHOWN_MISTAKES = 20

_STATUS: tuple[tuple[type[LookalikeError], int], ...] = (
    (BadQuery, 422),
    (BadFilter, 422),
    (BadImage, 422),
    (BadRow, 422),
    (UnknownProduct, 404),
    (EncoderMismatch, 409),
    (AlreadyRunning, 409),
    (DeadlineExceeded, 504),
    (DiskFull, 507),
    (StoreUnavailable, 503),
    (EncoderUnavailable, 503),
)

# What failed on our side is for our log: addresses, paths and filters are nobody else's business.
_OURS = {
    409: "the collection cannot be used as it is just now; the service's log says why",
    500: "the service has failed; its log says why, under this request id",
    503: "the vector store or the encoder is away; the request was not answered, send it again in a moment",
    507: "there is no room left to write; nothing of this request is lost to what was there before",
}

_log = structlog.get_logger("lookalike")


class RequestRefused(Exception):
    """A request that is turned away before it is a question."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


class MalformedBody(Exception):
    """A body that is not as it should be."""

    def __init__(self, errors: list[Invalid]) -> None:
        super().__init__(f"{len(errors)} mistakes")
        self.errors = errors


def mistakes(error: ValidationError) -> list[Invalid]:
    """Tell what is wrong, the first of it; of too many mistakes to look at, only how many there are."""
    count = error.error_count()
    if count > _MOST_MISTAKES:
        return [Invalid(at="", detail=f"{count} mistakes")]
    return _invalid(error.errors(include_url=False, include_context=False, include_input=False))


def _invalid(errors: Sequence[Any]) -> list[Invalid]:
    return [Invalid(at="/".join(map(str, wrong["loc"])), detail=wrong["msg"]) for wrong in errors[:_SHOWN_MISTAKES]]


def _misread(errors: list[Invalid], request_id: str) -> Problem:
    found = problem(422, "the request is not as it should be; see `errors`", request_id)
    found.errors = errors
    return found


def problem_of(error: LookalikeError, request_id: str = "") -> Problem:
    """Tell one of our errors."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return problem(status, _OURS.get(status, str(error)), request_id)


def unforeseen(request_id: str) -> Problem:
    """Tell that something has happened which nobody had thought of, and nothing more."""
    return problem(500, _OURS[500], request_id)


def problem(status: int, detail: str, request_id: str = "") -> Problem:
    """Make a problem with the title of its status."""
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, request_id=request_id)


def respond(found: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Send a problem."""
    retry = {"Retry-After": str(RETRY_SECONDS)} if found.status in (429, 503) else {}
    content = found.model_dump(exclude_defaults=True, exclude={"type"} if not found.errors else set())
    return JSONResponse(
        {"type": found.type, **content, "status": found.status},
        found.status,
        {**retry, **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def told_of(request: Request, error: LookalikeError) -> Problem:
    """Tell one of our errors to who asked, and the log what they are not told."""
    found = problem_of(error, request_id(request))
    request.state.error = type(error).__name__
    if found.status >= 500 or found.detail != str(error):
        _log.error("failed", error=type(error).__name__, reason=str(error))
    return found


def told(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe problems for OpenAPI: those named, and those that any request may meet."""
    every = {401, 403, 408, 429, 500, 503, 504, *statuses}
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in sorted(every)}


def install(app: FastAPI) -> None:
    """Turn whatever a route raises into a problem."""

    @app.exception_handler(LookalikeError)
    async def ours(request: Request, error: LookalikeError) -> JSONResponse:
        return respond(told_of(request, error))

    @app.exception_handler(RequestRefused)
    async def refused(request: Request, error: RequestRefused) -> JSONResponse:
        return respond(problem(error.status, error.detail, request_id(request)), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return respond(_misread(_invalid(error.errors()), request_id(request)))

    @app.exception_handler(MalformedBody)
    async def misread(request: Request, error: MalformedBody) -> JSONResponse:
        return respond(_misread(error.errors, request_id(request)))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        return respond(problem(error.status_code, str(error.detail), request_id(request)), error.headers)


def request_id(request: Request) -> str:
    """The name of a request in the log."""
    return str(getattr(request.state, "request_id", ""))
