"""The active version of a collection and its encoder; a background thread switches when another version goes live."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import structlog
from PIL import Image

from lookalike.encode.engine import Engine
from lookalike.encode.process_tuning import count_cores
from lookalike.schema.collection import require_same_encoder
from lookalike.schema.errors import LookalikeError
from lookalike.schema.milvus.column_kinds import ColumnKinds
from lookalike.schema.milvus.store import Store
from lookalike.search.finder import Finder
from lookalike.serve.runtime.batching import BatchedEncoder, BatchedSearch, batch_encoder
from lookalike.serve.runtime.deadline import check_deadline
from lookalike.serve.runtime.metrics import Metrics
from lookalike.serve.settings import Settings

_WATCH_SECONDS = 5.0
"""Seconds between two checks of which version is live."""

_GRACE_SECONDS = 60.0
"""Seconds to keep an old version open after the deadline of the last request that may use it."""

_CACHE_SECONDS = 30.0
"""Seconds to cache a product's vector. The service's own writes invalidate it at once."""

_log = structlog.get_logger("lookalike")


@dataclass(frozen=True, slots=True)
class OpenVersion:
    """An open version of a collection: its store, its encoder, the searches over both, and the kinds of its columns."""

    store: Store
    engine: Engine
    encoder: BatchedEncoder
    searches: BatchedSearch
    finder: Finder
    columns: ColumnKinds

    def close(self, *, encoder: bool) -> None:
        """Finish the queued work, then close the store; the encoder too, unless another version shares it."""
        if encoder:
            self.encoder.close()
        self.searches.close()
        self.store.close()


@dataclass(frozen=True, slots=True)
class _OldVersion:
    """A version that was replaced; requests that started before may still use it."""

    version: OpenVersion
    close_at: float
    """The time to close it, by `time.monotonic`."""
    close_encoder: bool


class ActiveVersion:
    """Opens the collection and, when another version goes live, opens that and switches; no search waits for it.

    `load` loads an encoder by name. Construction raises what opening and loading raise, so that a service that cannot
    answer does not start.
    """

    def __init__(
        self, open_store: Callable[[], Store], load: Callable[[str], Engine], metrics: Metrics, settings: Settings
    ) -> None:
        self._open_store = open_store
        self._load = load
        self._metrics = metrics
        self._settings = settings
        # Decoding is CPU work: more threads than cores would not make it faster.
        self._decode_slots = threading.BoundedSemaphore(count_cores())
        self._old_versions: list[_OldVersion] = []
        self._stop = threading.Event()
        self.version = self._open_version(None)
        self._thread = threading.Thread(target=self._watch, name="active-version", daemon=True)
        self._thread.start()

    @property
    def finder(self) -> Finder:
        """The finder of the active version."""
        return self.version.finder

    @property
    def queue_length(self) -> int:
        """The number of images and texts in the encoder's queue."""
        return self.version.encoder.queue_length

    def run_self_test(self) -> None:
        """Encode a random image and search with it. Raises what stops real requests from being answered."""
        version = self.version
        noise = np.random.default_rng().integers(0, 256, (64, 64, 3), dtype=np.uint8)
        pixels = version.encoder.prepare(Image.fromarray(noise))
        check_deadline()
        with self._metrics.time_stage("ready"):
            vector = version.encoder.encode_images(pixels[None])[0]
            version.store.search(vector, 1, fields=["product_id"])

    def switch_if_changed(self) -> None:
        """Switch to the live version if that is another one by now. Raises what opening and loading raise."""
        if self.version.store.is_live():
            return
        old, self.version = self.version, self._open_version(self.version)
        close_at = time.monotonic() + self._settings.deadline + _GRACE_SECONDS
        close_encoder = old.encoder is not self.version.encoder
        self._old_versions.append(_OldVersion(old, close_at, close_encoder))
        _log.info("version switched", before=old.store.version, after=self.version.store.version)

    def close(self) -> None:
        """End the thread and close all versions."""
        self._stop.set()
        self._thread.join()
        self._close_old_versions(float("inf"))
        self.version.close(encoder=True)

    def _open_version(self, previous: OpenVersion | None) -> OpenVersion:
        store = self._open_store()
        try:
            engine, encoder = self._share_or_load_encoder(store, previous)
        except BaseException:
            store.close()
            raise
        searches = BatchedSearch(store)
        finder = Finder(
            store,
            lambda: encoder,
            max_pixels=self._settings.max_pixels,
            cache_seconds=_CACHE_SECONDS,
            search_many=searches.search_many,
            timer=self._metrics.time_stage,
            check_deadline=check_deadline,
            decode_slots=self._decode_slots,
        )
        return OpenVersion(store, engine, encoder, searches, finder, ColumnKinds(store))

    def _share_or_load_encoder(self, store: Store, previous: OpenVersion | None) -> tuple[Engine, BatchedEncoder]:
        if previous is not None and not previous.store.fingerprint.list_differences(store.fingerprint):
            return previous.engine, previous.encoder
        engine = self._load(store.fingerprint.encoder)
        require_same_encoder(store.name, store.fingerprint, engine.encoder.fingerprint)
        return engine, batch_encoder(
            engine.encoder, engine.batch_size, engine.parallel_batches, self._metrics.observe_batch
        )

    def _watch(self) -> None:
        while not self._stop.wait(_WATCH_SECONDS):
            try:
                self.switch_if_changed()
                self._close_old_versions(time.monotonic())
            # Milvus or the new encoder's weights may be unavailable for a while: keep serving the current version.
            except LookalikeError as error:
                _log.warning("cannot check which version is live", reason=str(error))
            # A bug must not end the thread.
            except Exception:  # noqa: BLE001
                _log.exception("cannot check which version is live")

    def _close_old_versions(self, now: float) -> None:
        while self._old_versions and self._old_versions[0].close_at <= now:
            old = self._old_versions.pop(0)
            old.version.close(encoder=old.close_encoder)
