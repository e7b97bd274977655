"""The filters of the page: counted on a thread of their own, and kept for a while."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import structlog

from lookalike.schema.errors import LookalikeError
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.search.explore.facets import Facet, count_facets

_KEPT_SECONDS = 300.0
_SHARE = 100
"""Counting takes at most this part of the time: what took a minute is kept for a hundred."""

_RETRY_SECONDS = 10.0
_PATIENCE = 2.0
"""Seconds that the first page waits for its filters; of a large collection it goes without them for once."""

_log = structlog.get_logger("lookalike")


class FacetCache:
    """What the live version can be narrowed by; counted anew in the background when that is old."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="facets")
        self._lock = threading.Lock()
        self._counting: Future[None] | None = None
        self._version = ""
        self._facets: list[Facet] = []
        self._until = 0.0
        self._closed = False

    def facets(self, store: Store) -> list[Facet]:
        """Tell the facets of a version; empty when they are not known yet. Takes a moment at most."""
        counting = self._begun(store)
        if counting is not None and self._version != store.version:
            wait([counting], _PATIENCE)
        return self.known(store)

    def known(self, store: Store) -> list[Facet]:
        """Tell what is known now, without any work."""
        with self._lock:
            return self._facets if self._version == store.version else []

    def close(self) -> None:
        """End; what is being counted is left."""
        self._closed = True
        self._thread.shutdown()

    def _begun(self, store: Store) -> "Future[None] | None":
        with self._lock:
            old = self._version != store.version or time.monotonic() >= self._until
            if self._counting is None and old and not self._closed:
                self._counting = self._thread.submit(self._count, store)
            return self._counting

    def _count(self, store: Store) -> None:
        started = time.monotonic()
        found, kept = self.known(store), _RETRY_SECONDS
        try:
            found = count_facets(self._rows(store))
            kept = max(_KEPT_SECONDS, _SHARE * (time.monotonic() - started))
        except LookalikeError as error:
            _log.warning("the filters of the page could not be counted", reason=str(error))
        finally:
            with self._lock:
                self._version, self._facets = store.version, found
                self._until = time.monotonic() + kept
                self._counting = None

    def _rows(self, store: Store) -> Iterator[Row]:
        for row in store.rows(fields=["product_id", "metadata"]):
            if self._closed:
                return
            yield row
