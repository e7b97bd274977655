"""What a Collection holds open: the live version of the collection, and the encoders that were loaded."""

import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, cast

from lookalike.encode.encoder import Encoder
from lookalike.encode.engine import Engine
from lookalike.encode.process_tuning import MAX_PARALLEL_BATCHES, count_cores
from lookalike.encode.registry import load_encoder
from lookalike.ingest.job import CollectionAddress
from lookalike.schema.errors import BadQuery
from lookalike.schema.milvus.store import Store
from lookalike.search.finder import Finder

if TYPE_CHECKING:
    from lookalike.encode.backends.torch import TorchEncoder

_CHECK_SECONDS = 1.0
"""How often a search looks whether the name means another version by now."""

_BATCH = 16


class Session:
    """Opens the live version when it is first needed, and follows the name to the next one. Safe to use from threads.

    `encoder` is a name, hub id or directory; None is the collection's own.
    """

    def __init__(self, place: CollectionAddress, encoder: str | None, device: str) -> None:
        self.place = place
        self.encoder = encoder
        self._device = device
        self._stores = ExitStack()
        self._opening = threading.Lock()
        self._loading = threading.Lock()
        self._finder: Finder | None = None
        self._checked = 0.0
        self._encoders: dict[str, Encoder] = {}
        self._engines: dict[str, Engine] = {}
        self._is_closed = False

    def check_open(self) -> None:
        """Raise BadQuery when this session is closed."""
        if self._is_closed:
            raise BadQuery(f"this Collection of {self.place.collection!r} is closed; call lookalike.connect again")

    def finder(self) -> Finder:
        """Return what searches the live version. Raises BadSettings where there is no collection, StoreUnavailable."""
        with self._opening:
            self.check_open()
            if self._finder is None or not self._is_live(self._finder.store):
                place = self.place
                store = Store.open(place.uri, token=place.token, collection=place.collection)
                # Other threads may still search the version before: all are closed with the session.
                self._stores.enter_context(store)
                self._finder = Finder(store, partial(self._load_for_search, store.fingerprint.encoder))
                self._checked = time.monotonic()
            return self._finder

    def see_writes(self) -> None:
        """Wait until searches see what was written: a server acknowledges a write before."""
        self._checked = 0.0
        self.finder().store.count(consistency="Strong")

    def load_engine(self, name: str) -> Engine:
        """Load an encoder for many images, once. On a CPU the faster engine is measured when it is not known yet."""
        with self._loading:
            if name not in self._engines:
                self._engines[name] = _load_engine(name, self._device)
            return self._engines[name]

    def close(self) -> None:
        """Close what is open; a second call does nothing."""
        with self._opening:
            self._is_closed = True
            self._finder = None
            self._stores.close()
            self._encoders.clear()
            self._engines.clear()

    def _is_live(self, store: Store) -> bool:
        if time.monotonic() - self._checked < _CHECK_SECONDS:
            return True
        self._checked = time.monotonic()
        return store.is_live()

    def _load_for_search(self, own: str) -> Encoder:
        """Load an encoder for single images, unless it is loaded: one search is not worth a measurement."""
        name = self.encoder or own
        with self._loading:
            if name in self._engines:
                return self._engines[name].encoder
            if name not in self._encoders:
                self._encoders[name] = load_encoder(name, device=self._device, engine="kept")
            return self._encoders[name]


def _load_engine(name: str, device: str) -> Engine:
    lanes = min(count_cores(), MAX_PARALLEL_BATCHES)
    encoder = load_encoder(name, device=device, engine="auto", parallel_batches=lanes)
    # Only torch's encoders have one; an import of torch just to ask by their type takes seconds.
    placed = getattr(encoder, "device", None)
    if placed is not None and placed.type == "cuda":
        return _on_gpu(cast("TorchEncoder", encoder))
    return Engine(encoder, _BATCH, lanes)


def _on_gpu(encoder: "TorchEncoder") -> Engine:
    from lookalike.encode.backends.batch_size import choose_batch_size
    from lookalike.encode.backends.device import GPU_PARALLEL_BATCHES

    return Engine(encoder, choose_batch_size(encoder, GPU_PARALLEL_BATCHES, lambda _: None), GPU_PARALLEL_BATCHES)
