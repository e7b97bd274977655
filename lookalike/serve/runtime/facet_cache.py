"""The filters of the page: counted on a background thread and cached for a while."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import structlog

from lookalike.schema.errors import LookalikeError
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.search.explore.facets import Facet, count_facets

_MIN_FRESH_SECONDS = 300.0
_FRESH_PER_SECOND = 100
"""Facets that took a minute to count are fresh for 100 minutes, so counting takes at most 1 % of the time."""

_RETRY_SECONDS = 10.0
_MAX_WAIT_SECONDS = 2.0
"""How long the first page waits for its filters. With a large collection, it is shown without them."""

_log = structlog.get_logger("lookalike")


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The facets of a version, and when to count them again."""

    version: str = ""
    facets: Sequence[Facet] = ()
    fresh_until: float = 0.0


class FacetCache:
    """The facets of the active version. Old facets are served while they are counted again in the background.

    This is no LRU or TTL cache: it holds one version, and its entry outlives its age until the next count is done.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="facets")
        self._lock = threading.Lock()
        self._counting: Future[None] | None = None
        self._snapshot = _Snapshot()
        self._is_closed = False

    def get_facets(self, store: Store) -> Sequence[Facet]:
        """Return the facets of a version. Waits up to two seconds for the first count; none if it takes longer."""
        counting = self._count_if_old(store)
        if counting is not None and self._snapshot.version != store.version:
            wait([counting], _MAX_WAIT_SECONDS)
        return self.get_cached(store)

    def get_cached(self, store: Store) -> Sequence[Facet]:
        """Return the facets of a version if they are cached, else none. Starts no count."""
        snapshot = self._snapshot
        return snapshot.facets if snapshot.version == store.version else ()

    def close(self) -> None:
        """Stop counting and end the thread. What is cached can still be read."""
        self._is_closed = True
        self._thread.shutdown()

    def _count_if_old(self, store: Store) -> "Future[None] | None":
        """Start a count if one is due; return the count that runs, if any."""
        with self._lock:
            is_old = self._snapshot.version != store.version or time.monotonic() >= self._snapshot.fresh_until
            if self._counting is None and is_old and not self._is_closed:
                self._counting = self._thread.submit(self._count, store)
            return self._counting

    def _count(self, store: Store) -> None:
        started = time.monotonic()
        facets, fresh_seconds = self.get_cached(store), _RETRY_SECONDS
        try:
            facets = count_facets(self._read_rows(store))
            fresh_seconds = max(_MIN_FRESH_SECONDS, _FRESH_PER_SECOND * (time.monotonic() - started))
        except LookalikeError as error:
            _log.warning("cannot count the filters of the page", reason=str(error))
        finally:
            with self._lock:
                self._snapshot = _Snapshot(store.version, facets, time.monotonic() + fresh_seconds)
                self._counting = None

    def _read_rows(self, store: Store) -> Iterator[Row]:
        for row in store.rows(fields=["product_id", "metadata"]):
            if self._is_closed:
                return
            yield row
