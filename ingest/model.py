"""The encoder of a run, loaded when the first picture needs it: a run without new pictures needs no network."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from encode.encoder import Encoder
from ingest.profile import Profile, spent
from schema.product import Vectors


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded encoder; how many pictures make a batch, and how many batches it works on at the same time."""

    encoder: Encoder
    batch_size: int = 32
    lanes: int = 1


class Model:
    """An encoder that is loaded once, by whichever thread needs it first."""

    def __init__(self, load: Callable[[], Engine], profile: Profile | None = None) -> None:
        self._load = load
        self._profile = profile
        self._loading = threading.Lock()
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """Load it. Raises EncoderUnavailable, EncoderMismatch."""
        with self._loading:
            if self._engine is None:
                self._engine = self._load()
                self._lanes = threading.BoundedSemaphore(self._engine.lanes)
        return self._engine

    @property
    def encoder(self) -> Encoder:
        """The encoder itself."""
        return self.engine.encoder

    def encode(self, pixels: list[np.ndarray]) -> Vectors:
        """Encode prepared pictures: shape (n, dim), unit length. Waits while as many batches as fit are under way."""
        encoder = self.encoder
        with spent(self._profile, "wait", len(pixels)):
            self._lanes.acquire()
        try:
            with spent(self._profile, "forward", len(pixels)):
                return encoder.encode_images(np.stack(pixels))
        finally:
            self._lanes.release()
