"""One ASGI pass around the application."""

import time

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from lookalike.serve.api.problems import RequestRefused, describe_internal_error, make_problem, render_problem
from lookalike.serve.middleware.api_keys import check_api_key
from lookalike.serve.middleware.headers import ResponseHeaders
from lookalike.serve.middleware.limits import RequestLimits
from lookalike.serve.middleware.paths import is_probe
from lookalike.serve.middleware.request_log import RequestLog, assign_request_id
from lookalike.serve.runtime.metrics import Metrics
from lookalike.serve.settings import Settings

_log = structlog.get_logger("lookalike")


class RequestGuard:
    """ASGI middleware that names, limits, authorises and logs each request, and adds headers to each response.

    HEAD is answered as GET is, without the body.
    What it refuses, and what a route raises unexpectedly, becomes a problem response.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._limits = RequestLimits(settings, metrics)
        self._request_log = RequestLog(metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = assign_request_id(scope)
        method = scope["method"]
        response = ResponseHeaders(send, request_id, has_body=method != "HEAD")
        if method == "HEAD":
            # A copy: the server has to know that the client expects no body.
            scope = {**scope, "method": "GET"}
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                with self._limits.in_flight(scope["path"]):
                    await self._serve(scope, receive, response, request_id)
            finally:
                self._request_log.record(scope, method, response.status, time.perf_counter() - started)

    async def _serve(self, scope: Scope, receive: Receive, response: ResponseHeaders, request_id: str) -> None:
        try:
            self._check(scope)
            await self._app(scope, self._limits.limit_body(scope["path"], receive), response)
        except RequestRefused as refused:
            scope["state"]["error"] = "RequestRefused"
            problem = make_problem(refused.status, refused.detail, request_id)
            await render_problem(problem, refused.headers)(scope, receive, response)
        except ClientDisconnect:
            scope["state"]["error"] = "ClientDisconnect"
        # A bug: the log gets the traceback, the client only the request id.
        except Exception as error:  # noqa: BLE001
            scope["state"]["error"] = type(error).__name__
            _log.exception("unhandled exception")
            if not response.has_started:
                await render_problem(describe_internal_error(request_id))(scope, receive, response)

    def _check(self, scope: Scope) -> None:
        """Raise RequestRefused for a request that is over a limit or lacks a key."""
        if is_probe(scope["path"]):
            return
        request = Request(scope)
        self._limits.check(request)
        check_api_key(request, self._settings)
