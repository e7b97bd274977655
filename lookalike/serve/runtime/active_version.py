"""The live version of a collection and its encoder, followed while the service runs."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import structlog
from PIL import Image

from lookalike.encode.engine import Engine
from lookalike.encode.process_tuning import count_cores
from lookalike.schema.collection import require_same_encoder
from lookalike.schema.errors import LookalikeError
from lookalike.schema.milvus.store import Store
from lookalike.search.finder import Finder
from lookalike.serve.runtime.batching import BatchedEncoder, BatchedSearch, batch_encoder
from lookalike.serve.runtime.metrics import Metrics
from lookalike.serve.settings import Settings

LOOK_EVERY = 5.0
"""Seconds between two looks at which version is live."""

_GRACE = 60.0
"""Seconds after the deadline of the last request that may work with a version, until that is closed."""

_REMEMBERED = 30.0
"""Seconds for which a product's vector is good enough; what this service writes itself it forgets at once."""

_log = structlog.get_logger("lookalike")


@dataclass(frozen=True, slots=True)
class OpenVersion:
    """A version of a collection that is open: its rows, its encoder, and what answers questions about both."""

    store: Store
    engine: Engine
    encoder: BatchedEncoder
    searches: BatchedSearch
    finder: Finder

    def close(self, *, encoder: bool) -> None:
        """Finish what was asked; the encoder too, when no other version goes on with it."""
        if encoder:
            self.encoder.close()
        self.searches.close()
        self.store.close()


class ActiveVersion:
    """Opens the collection, and another version of it as soon as that is live: questions never wait for the change.

    `load` loads an encoder by name. Raises what opening and loading raise: a service that cannot answer does not start.
    """

    def __init__(
        self, open_store: Callable[[], Store], load: Callable[[str], Engine], metrics: Metrics, settings: Settings
    ) -> None:
        self._open_store = open_store
        self._load = load
        self._metrics = metrics
        self._settings = settings
        self._decoding = threading.BoundedSemaphore(count_cores())
        self._left: list[tuple[float, OpenVersion, bool]] = []
        self._stop = threading.Event()
        self.version = self._opened(None)
        self._thread = threading.Thread(target=self._follow, name="live", daemon=True)
        self._thread.start()

    @property
    def finder(self) -> Finder:
        """Answers questions about the live version."""
        return self.version.finder

    @property
    def waiting(self) -> int:
        """Images and texts that wait for the encoder."""
        return self.version.encoder.waiting

    def prove(self) -> None:
        """Embed an image and search with it, truly. Raises what is in the way."""
        version = self.version
        noise = np.random.default_rng().integers(0, 256, (64, 64, 3), dtype=np.uint8)
        pixels = version.encoder.prepare(Image.fromarray(noise))
        with self._metrics.timed("ready"):
            vector = version.encoder.encode_images(pixels[None])[0]
            version.store.search(vector, 1, fields=["product_id"])

    def look(self) -> None:
        """Look whether another version is live, and go over to it."""
        if self.version.store.is_live():
            return
        before, self.version = self.version, self._opened(self.version)
        kept = before.encoder is self.version.encoder
        self._left.append((time.monotonic() + self._settings.deadline + _GRACE, before, kept))
        _log.info("moved", before=before.store.version, after=self.version.store.version)

    def close(self) -> None:
        """Let go of everything."""
        self._stop.set()
        self._thread.join()
        self._let_go(float("inf"))
        self.version.close(encoder=True)

    def _opened(self, before: OpenVersion | None) -> OpenVersion:
        store = self._open_store()
        try:
            if before is not None and not before.store.fingerprint.differences(store.fingerprint):
                engine, encoder = before.engine, before.encoder
            else:
                engine = self._load(store.fingerprint.encoder)
                require_same_encoder(store.name, store.fingerprint, engine.encoder.fingerprint)
                encoder = batch_encoder(engine.encoder, engine.batch_size, engine.parallel_batches, self._metrics.batch)
        except BaseException:
            store.close()
            raise
        searches = BatchedSearch(store)
        finder = Finder(
            store,
            lambda: encoder,
            max_pixels=self._settings.max_pixels,
            remember=_REMEMBERED,
            search_many=searches.search_many,
            timed=self._timed,
        )
        return OpenVersion(store, engine, encoder, searches, finder)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Measure a stage; more images decoded at once than there are cores would only take turns."""
        with self._decoding if stage == "decode" else nullcontext(), self._metrics.timed(stage):
            yield

    def _follow(self) -> None:
        while not self._stop.wait(LOOK_EVERY):
            try:
                self.look()
                self._let_go(time.monotonic())
            # Milvus may be away for a while, or the new encoder's weights: the version at hand goes on.
            except LookalikeError as error:
                _log.warning("cannot see which version is live", reason=str(error))
            # A mistake of ours must not end the following either.
            except Exception:  # noqa: BLE001
                _log.exception("cannot see which version is live")

    def _let_go(self, now: float) -> None:
        while self._left and self._left[0][0] <= now:
            _, version, kept = self._left.pop(0)
            version.close(encoder=not kept)
