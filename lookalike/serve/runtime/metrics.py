"""Prometheus metrics of one service: requests, stages, batches, queues and errors."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

MEDIA_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "lookalike_requests",
            "HTTP requests by route, method and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "lookalike_request_seconds",
            "Seconds from the start of a request to the end of its response.",
            ["route", "method"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "lookalike_stage_seconds",
            "Seconds per stage: decode, encode (with the wait for a batch), lookup, search, ready (the self-test).",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch_sizes = Histogram(
            "lookalike_batch_size",
            "Images or texts that were encoded in one batch.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self.registry,
        )
        self.errors = Counter("lookalike_errors", "Failed requests by error.", ["error"], registry=self.registry)

    def add_gauge(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Add a gauge, whose value is read at each scrape."""
        Gauge(name, description, registry=self.registry).set_function(read)

    def observe_batch(self, size: int) -> None:
        """Count a batch that was encoded."""
        self._batch_sizes.observe(size)

    @contextmanager
    def time_stage(self, stage: str) -> Iterator[None]:
        """Measure the seconds of a stage, also of one that fails."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._stages.labels(stage).observe(time.perf_counter() - started)

    def to_text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self.registry)
