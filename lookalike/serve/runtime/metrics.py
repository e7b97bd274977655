"""What Prometheus may ask: requests, stages, batches, queues, errors."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from lookalike.serve.runtime.deadline import current_deadline

MEDIA_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The counters of one service; each has a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "lookalike_requests", "Requests answered.", ["route", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "lookalike_request_seconds",
            "From the first byte to the last.",
            ["route", "method"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "lookalike_stage_seconds",
            "Stages of a question: decode, encode (waiting for a batch included), lookup, search.",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batches = Histogram(
            "lookalike_batch_size",
            "Images or texts that went through the network together.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self.registry,
        )
        self.errors = Counter("lookalike_errors", "Requests that failed, by error.", ["error"], registry=self.registry)

    def watch(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Tell a number as it is when asked."""
        Gauge(name, meaning, registry=self.registry).set_function(read)

    def batch(self, size: int) -> None:
        """Note a batch."""
        self._batches.observe(size)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Measure a stage; one that nobody waits for is not begun. Raises TooLate."""
        deadline = current_deadline()
        if deadline is not None:
            deadline.check()
        started = time.perf_counter()
        try:
            yield
        finally:
            self._stages.labels(stage).observe(time.perf_counter() - started)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
