"""The encoder at work on many images: prepare one, encode a batch. Ingest, the service and the API share it."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

import numpy as np

from lookalike.encode.decode import load_rgb, open_image, reduce_on_decode
from lookalike.encode.encoder import Encoder
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.preprocess import Pixels, Prepare
from lookalike.encode.stage_timer import NO_TIMER, StageTimer
from lookalike.schema.cancellation import CancelToken
from lookalike.schema.collection import Fingerprint
from lookalike.schema.product import Vectors

if TYPE_CHECKING:
    from ray import ObjectRef

    from lookalike.encode.decode_pool import DecodePool

Content: TypeAlias = "bytes | ObjectRef"
"""The bytes of an image file; on Ray, a reference to them."""

Prepared: TypeAlias = "Pixels | ObjectRef"
"""An image that is ready to be encoded; on Ray, a reference to it."""


class EncodingEngine(Protocol):
    """Prepares and encodes images, in this process or in others; called from many threads at once."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What makes two vectors comparable."""

    @property
    def batch_size(self) -> int:
        """How many images make a batch."""

    @property
    def parallel_batches(self) -> int:
        """How many batches it encodes at the same time."""

    def prepare(self, content: Content, budget: PixelBudget, timer: StageTimer = NO_TIMER) -> Prepared:
        """Decode one image and prepare it for the encoder. Raises BadImage."""

    def encode(self, images: Sequence[Prepared]) -> Vectors:
        """Encode prepared images: float32 (n, dim) of unit length."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """How images are prepared for an encoder, without its model: see Encoder."""

    edge: int | None
    prepare: Prepare

    def __call__(self, content: bytes, budget: PixelBudget, timer: StageTimer = NO_TIMER) -> Pixels:
        """Decode one image as soon as the budget has room for it, and prepare it. Raises BadImage."""
        image = reduce_on_decode(open_image(content, budget.max_pixels), self.edge)
        with budget.reserve(image.width * image.height):
            with timer.measure("decode"):
                image = load_rgb(image)
            with timer.measure("resize"):
                return self.prepare(image)


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded encoder, how many images make a batch, and how many batches it encodes at the same time."""

    encoder: Encoder
    batch_size: int = 32
    parallel_batches: int = 1
    decoders: "DecodePool | None" = None
    """Processes that decode, and end with this one; without them the calling thread decodes."""

    @property
    def fingerprint(self) -> Fingerprint:
        """The encoder's."""
        return self.encoder.fingerprint

    def prepare(self, content: Content, budget: PixelBudget, timer: StageTimer = NO_TIMER) -> Pixels:
        """Prepare one image on this thread, or in another process: then `decode` includes `resize`. Raises BadImage."""
        if self.decoders is not None:
            with timer.measure("decode"):
                return self.decoders(cast("bytes", content), budget)
        return Preparation(self.encoder.edge, self.encoder.prepare)(content, budget, timer)

    def encode(self, images: Sequence[Prepared]) -> Vectors:
        """Encode on this thread."""
        return self.encoder.encode_images(np.stack(images))


class LazyEngine:
    """An engine that the first thread that needs it loads, once: a run without new images loads no encoder."""

    def __init__(self, load: Callable[[], EncodingEngine], timer: StageTimer = NO_TIMER) -> None:
        self._load = load
        self._timer = timer
        self._loading = threading.Lock()
        self._engine: EncodingEngine | None = None

    @property
    def engine(self) -> EncodingEngine:
        """Load it. Raises EncoderUnavailable, EncoderMismatch."""
        with self._loading:
            if self._engine is None:
                self._engine = self._load()
                self._batch_slots = threading.BoundedSemaphore(self._engine.parallel_batches)
        return self._engine

    def prepare(self, content: Content, budget: PixelBudget) -> Prepared:
        """Decode one image and prepare it for the encoder. Raises BadImage."""
        return self.engine.prepare(content, budget, self._timer)

    def encode(self, images: Sequence[Prepared], cancel: CancelToken | None = None) -> Vectors:
        """Encode prepared images: float32 (n, dim) of unit length.

        Waits for one of the engine's `parallel_batches` slots. Raises RunCancelled when the token was cancelled
        meanwhile.
        """
        engine = self.engine
        with self._timer.measure("wait", len(images)):
            self._batch_slots.acquire()
        try:
            if cancel is not None:
                cancel.check()
            with self._timer.measure("forward", len(images)):
                return engine.encode(images)
        finally:
            self._batch_slots.release()
