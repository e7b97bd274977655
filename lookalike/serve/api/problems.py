"""Errors as HTTP responses: RFC 9457 problem details, by one table from error class to status."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

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
from lookalike.serve.api.parameters import describe_unknown
from lookalike.serve.api.schemas import FieldError, Problem, list_fields
from lookalike.serve.runtime.deadline import DeadlineExceeded

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2

GUARDED = (401, 403, 413, 422, 429, 500)
"""The statuses of a route that is not open to all: the guard's own, a parameter that is wrong, a bug."""
STORE = (503, 504)
"""The statuses of a route that needs Milvus or the encoder."""

_MAX_FIELD_ERRORS = 1_000
_SHOWN_FIELD_ERRORS = 20

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
"""The first class that matches decides; any other LookalikeError is a 500."""

_PUBLIC_DETAILS = {
    409: "the service cannot use its collection at present; try again later, and tell its operator this request id",
    500: "the service failed; try again, and tell its operator this request id if it fails again",
    503: "the service cannot reach its database or its encoder; try again in a moment",
    507: "the service has no disk space left, and nothing was lost; tell its operator, and try again later",
}
"""Replace the message of a failure on our side: what the operator can do about it is in the log only."""

_log = structlog.get_logger("lookalike")


class RequestRefused(Exception):
    """A request that gets a problem as its response, whatever the collection holds."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


class MalformedBody(Exception):
    """A body that does not match its schema."""

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__(f"{len(errors)} errors")
        self.errors = errors


def explain_validation_errors(error: ValidationError, model: type[BaseModel]) -> list[FieldError]:
    """List the first errors of a body. When there are too many to list quickly, give only their number."""
    count = error.error_count()
    if count > _MAX_FIELD_ERRORS:
        return [FieldError(at="", detail=f"{count} errors")]
    errors = error.errors(include_url=False, include_context=False, include_input=False)[:_SHOWN_FIELD_ERRORS]
    for field in errors:
        if field["type"] == "extra_forbidden":
            *parents, name = field["loc"]
            field["msg"] = describe_unknown("field", str(name), list_fields(model, parents))
    return _to_field_errors(errors)


def _to_field_errors(errors: Sequence[Any]) -> list[FieldError]:
    return [
        FieldError(at="/".join(map(str, error["loc"])), detail=error["msg"]) for error in errors[:_SHOWN_FIELD_ERRORS]
    ]


def make_problem(status: int, detail: str, request_id: str = "") -> Problem:
    """Make a problem with the title of its status."""
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, request_id=request_id)


def describe_error(error: LookalikeError, request_id: str = "") -> Problem:
    """Return the problem for an error: what its caller can do."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return make_problem(status, _PUBLIC_DETAILS.get(status) or error.public or str(error), request_id)


def describe_and_log(error: LookalikeError, request_id: str) -> Problem:
    """Return the problem for an error, and log what it leaves out: what only the operator can do."""
    problem = describe_error(error, request_id)
    if problem.detail != str(error):
        log = _log.error if problem.status >= 500 else _log.warning
        log("request failed", error=type(error).__name__, reason=str(error))
    return problem


def describe_internal_error(request_id: str) -> Problem:
    """Return the problem for a bug: nothing of the exception, only where to find it."""
    return make_problem(500, _PUBLIC_DETAILS[500], request_id)


def _describe_malformed(errors: list[FieldError], request_id: str) -> Problem:
    problem = make_problem(422, "the request does not match its schema; see `errors`", request_id)
    problem.errors = errors
    return problem


def report_error(request: Request, error: LookalikeError) -> Problem:
    """Return the problem for a request's error, and count the error."""
    request.state.error = type(error).__name__
    return describe_and_log(error, get_request_id(request))


def render_problem(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the response for a problem, with Retry-After where a later try can succeed."""
    retry = {"Retry-After": str(RETRY_SECONDS)} if problem.status in (429, 503) else {}
    content = problem.model_dump(exclude_defaults=True, exclude={"type"} if not problem.errors else set())
    return JSONResponse(
        {"type": problem.type, **content, "status": problem.status},
        problem.status,
        {**retry, **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def document_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe a route's problems for OpenAPI."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in sorted(statuses)}


def install_error_handlers(app: FastAPI) -> None:
    """Turn each exception that a route raises on purpose into a problem."""

    @app.exception_handler(LookalikeError)
    async def handle_lookalike_error(request: Request, error: LookalikeError) -> JSONResponse:
        return render_problem(report_error(request, error))

    @app.exception_handler(RequestRefused)
    async def handle_refusal(request: Request, error: RequestRefused) -> JSONResponse:
        return render_problem(make_problem(error.status, error.detail, get_request_id(request)), error.headers)

    @app.exception_handler(RequestValidationError)
    async def handle_bad_parameters(request: Request, error: RequestValidationError) -> JSONResponse:
        return render_problem(_describe_malformed(_to_field_errors(error.errors()), get_request_id(request)))

    @app.exception_handler(MalformedBody)
    async def handle_bad_body(request: Request, error: MalformedBody) -> JSONResponse:
        return render_problem(_describe_malformed(error.errors, get_request_id(request)))

    @app.exception_handler(HTTPException)
    async def handle_http_exception(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 405:
            return render_problem(_describe_wrong_method(request), {"Allow": ", ".join(_list_methods(request))})
        problem = make_problem(error.status_code, str(error.detail), get_request_id(request))
        return render_problem(problem, error.headers)


def _describe_wrong_method(request: Request) -> Problem:
    detail = f"{request.url.path} takes {', '.join(_list_methods(request))}, not {request.method}"
    return make_problem(405, detail, get_request_id(request))


def _list_methods(request: Request) -> list[str]:
    """List the methods of a path: Starlette names those of the first route alone, and knows no HEAD of a GET."""
    scope = {"type": "http", "path": request.scope["path"], "root_path": request.scope.get("root_path", "")}
    methods = [
        method
        for method in ("GET", "POST", "PUT", "DELETE")
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
    return ["GET", "HEAD", *methods[1:]] if "GET" in methods else methods


def get_request_id(request: Request) -> str:
    """Return the id under which the log has a request."""
    return str(getattr(request.state, "request_id", ""))
