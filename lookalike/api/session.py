"""What a Collection keeps open: the live version of the collection, and the encoders it has loaded."""

import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from lookalike.api.parameter_names import name_parameters
from lookalike.encode.backends.select import as_torch_encoder
from lookalike.encode.encoder import Encoder
from lookalike.encode.engine import Engine
from lookalike.encode.process_tuning import MAX_PARALLEL_BATCHES, count_cores
from lookalike.encode.registry import load_encoder
from lookalike.schema.errors import BadQuery
from lookalike.schema.milvus.store import Store
from lookalike.schema.settings import CollectionAddress
from lookalike.search.finder import Finder

if TYPE_CHECKING:
    from lookalike.encode.backends.torch import TorchEncoder

_CHECK_SECONDS = 1.0
"""How often a search checks whether the name means another version by now."""

_BATCH = 16


class Session:
    """Opens the live version when it is first needed, and follows the name to the next one; safe to use from threads.

    `encoder` is a name, hub id or directory; None is the collection's own.
    """

    def __init__(self, address: CollectionAddress, encoder: str | None, device: str) -> None:
        self.address = address
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
            raise BadQuery(f"this Collection of {self.address.collection!r} is closed; call lookalike.connect again")

    def finder(self) -> Finder:
        """Return the Finder of the live version. Raises BadSettings where there is no collection, StoreUnavailable."""
        with self._opening, name_parameters():
            self.check_open()
            if self._finder is None or not self._is_live(self._finder.store):
                address = self.address
                store = Store.open(address.uri, token=address.token, collection=address.collection)
                # Other threads may still search the version before: all stores are closed with the session.
                self._stores.enter_context(store)
                self._finder = Finder(store, partial(self._load_for_search, store.fingerprint.encoder))
                self._checked = time.monotonic()
            return self._finder

    def see_writes(self) -> None:
        """Wait until searches see what was written: a server acknowledges a write before."""
        self._checked = 0.0
        self.finder().store.count(consistency="Strong")

    def load_engine(self, name: str) -> Engine:
        """Load an encoder for many images, once. On a CPU this measures which engine is faster, if that is unknown."""
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

    def _load_for_search(self, collection_encoder: str) -> Encoder:
        """Load an encoder for single images, once. One search does not pay for measuring engines."""
        name = self.encoder or collection_encoder
        with self._loading, name_parameters():
            if name in self._engines:
                return self._engines[name].encoder
            if name not in self._encoders:
                self._encoders[name] = load_encoder(name, device=self._device, engine="cached")
            return self._encoders[name]


def _load_engine(name: str, device: str) -> Engine:
    parallel_batches = min(count_cores(), MAX_PARALLEL_BATCHES)
    encoder = load_encoder(name, device=device, engine="auto", parallel_batches=parallel_batches)
    torch_encoder = as_torch_encoder(encoder)
    if torch_encoder is not None and torch_encoder.device.type == "cuda":
        return _make_gpu_engine(torch_encoder)
    return Engine(encoder, _BATCH, parallel_batches)


def _make_gpu_engine(encoder: "TorchEncoder") -> Engine:
    from lookalike.encode.backends.batch_size import choose_batch_size
    from lookalike.encode.backends.device import GPU_PARALLEL_BATCHES

    return Engine(encoder, choose_batch_size(encoder, GPU_PARALLEL_BATCHES, lambda _: None), GPU_PARALLEL_BATCHES)
