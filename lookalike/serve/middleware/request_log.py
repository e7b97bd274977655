"""The id of a request, its metrics and its log line."""

import uuid

import structlog
from starlette.types import Scope

from lookalike.serve.middleware.paths import is_probe
from lookalike.serve.runtime.metrics import Metrics

_METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD")

_log = structlog.get_logger("lookalike")


def assign_request_id(scope: Scope) -> str:
    """Give a request an id; `problems.get_request_id` reads it from the request's state."""
    request_id = uuid.uuid4().hex[:16]
    scope.setdefault("state", {})["request_id"] = request_id
    return request_id


class RequestLog:
    """Counts and logs each request when it has ended. Probes are counted but not logged."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def record(self, scope: Scope, sent_method: str, status: int, seconds: float) -> None:
        """Record how a request ended. A name under `error` in its state is counted as an error."""
        # The route's template, not the path: one counter for all products, and no product ids in the metrics.
        route = getattr(scope.get("route"), "path_format", "other")
        method = sent_method if sent_method in _METHODS else "other"
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.request_seconds.labels(route, method).observe(seconds)
        if (error := scope["state"].get("error")) is not None:
            self._metrics.errors.labels(error).inc()
        if not is_probe(scope["path"]):
            _log.info("request", method=method, route=route, status=status, ms=round(seconds * 1_000, 1))
