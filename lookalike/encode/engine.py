"""What encodes the images of a run, loaded when the first one needs it; a run without new images loads nothing."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

import numpy as np

from lookalike.encode.decode import load_rgb, open_image, reduce_on_decode
from lookalike.encode.encoder import Encoder
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.preprocess import Pixels, Prepare
from lookalike.encode.profile import Profile, timed
from lookalike.ingest.sources.files import image_reader
from lookalike.schema.collection import Fingerprint
from lookalike.schema.product import FileState, Vectors

if TYPE_CHECKING:
    from ray import ObjectRef

    from lookalike.encode.decode_pool import DecodePool

Content: TypeAlias = "bytes | ObjectRef"
"""The bytes of an image; on Ray, where they are."""

Prepared: TypeAlias = "Pixels | ObjectRef"
"""An image that is ready for the network; on Ray, where it is."""


ReadChanged: TypeAlias = "Callable[[str, FileState | None], tuple[Content, FileState] | None]"
"""Reads an image, unless it is known and a web server says that it has not changed: then None. Raises BadImage."""


class EncodingEngine(Protocol):
    """What prepares and encodes images, in this process or in others; called from many threads at once."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What makes two vectors comparable."""

    @property
    def batch_size(self) -> int:
        """How many images make a batch."""

    @property
    def lanes(self) -> int:
        """How many batches it works on at the same time."""

    def prepare(self, content: Content, budget: PixelBudget, profile: Profile | None) -> Prepared:
        """Decode one image and bring it to what the network wants. Raises BadImage."""

    def encode(self, images: Sequence[Prepared]) -> Vectors:
        """Encode prepared images: float32 (n, dim) of unit length."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """How images are prepared for a network, without the network: see Encoder."""

    edge: int | None
    prepare: Prepare

    def __call__(self, content: bytes, budget: PixelBudget, profile: Profile | None = None) -> Pixels:
        """Decode one image, as soon as the budget has room for it, and prepare it. Raises BadImage."""
        image = reduce_on_decode(open_image(content, budget.max_pixels), self.edge)
        with budget.reserve(image.width * image.height):
            with timed(profile, "decode"):
                image = load_rgb(image)
            with timed(profile, "resize"):
                return self.prepare(image)


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded encoder; how many images make a batch, and how many batches it works on at the same time."""

    encoder: Encoder
    batch_size: int = 32
    lanes: int = 1
    decoders: "DecodePool | None" = None
    """Processes that decode, and end with this one; without them, it is done by the thread that asks for it."""

    @property
    def fingerprint(self) -> Fingerprint:
        """The encoder's."""
        return self.encoder.fingerprint

    def prepare(self, content: Content, budget: PixelBudget, profile: Profile | None) -> Pixels:
        """Prepare one image on this thread, or in a process beside it: then decode and resize are one."""
        if self.decoders is not None:
            with timed(profile, "decode"):
                return self.decoders(cast("bytes", content), budget)
        return Preparation(self.encoder.edge, self.encoder.prepare)(content, budget, profile)

    def encode(self, images: Sequence[Prepared]) -> Vectors:
        """Encode on this thread."""
        return self.encoder.encode_images(np.stack(images))


class LazyEngine:
    """An engine that is loaded once, by whichever thread needs it first; `read` brings the bytes of an image."""

    def __init__(
        self,
        load: Callable[[], EncodingEngine],
        profile: Profile | None = None,
        read: "ReadChanged | None" = None,
    ) -> None:
        self._load = load
        self._profile = profile
        self._read = read or image_reader().read_changed
        self._loading = threading.Lock()
        self._engine: EncodingEngine | None = None

    @property
    def engine(self) -> EncodingEngine:
        """Load it. Raises EncoderUnavailable, EncoderMismatch."""
        with self._loading:
            if self._engine is None:
                self._engine = self._load()
                self._lanes = threading.BoundedSemaphore(self._engine.lanes)
        return self._engine

    def read(self, image: str) -> tuple[Content, FileState]:
        """Read an image's bytes, and what tells later that it has changed. Raises BadImage."""
        return cast("tuple[Content, FileState]", self.read_changed(image, None))

    def read_changed(self, image: str, known: FileState | None) -> tuple[Content, FileState] | None:
        """Read an image; None when it is on the web, and its server says that it is the one known. Raises BadImage."""
        with timed(self._profile, "read"):
            return self._read(image, known)

    def prepare(self, content: Content, budget: PixelBudget) -> Prepared:
        """Decode one image and bring it to what the network wants. Raises BadImage."""
        return self.engine.prepare(content, budget, self._profile)

    def encode(self, images: Sequence[Prepared]) -> Vectors:
        """Encode prepared images: shape (n, dim), unit length. Waits while as many batches as fit are under way."""
        engine = self.engine
        with timed(self._profile, "wait", len(images)):
            self._lanes.acquire()
        try:
            with timed(self._profile, "forward", len(images)):
                return engine.encode(images)
        finally:
            self._lanes.release()
