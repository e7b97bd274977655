"""What an encoder is."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from PIL import Image

from lookalike.encode.preprocess import Pixels, Prepare, Preprocessing
from lookalike.schema.collection import Fingerprint
from lookalike.schema.product import Vectors


class Encoder(Protocol):
    """From images to unit vectors: `prepare` one at a time on any thread, then `encode_images` in batches."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What makes two vectors comparable."""

    @property
    def dim(self) -> int:
        """The length of a vector."""

    @property
    def edge(self) -> int | None:
        """To how many pixels the shorter edge of an image is brought; None where that is not known."""

    def prepare(self, image: Image.Image) -> Pixels:
        """Resize and crop one RGB image as the network wants it; safe to call from several threads."""

    def encode_images(self, batch: Pixels) -> Vectors:
        """Encode prepared images, stacked: (n, …) to float32 (n, dim) of unit length."""


@runtime_checkable
class TextEncoder(Encoder, Protocol):
    """An encoder that puts words where images of them are."""

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Encode texts: float32 (n, dim) of unit length."""


class PreparingEncoder:
    """What the encoders share: images are prepared by `prepare_image`, whichever network takes them."""

    def __init__(self, prepare_image: Prepare, fingerprint: Fingerprint) -> None:
        self.prepare_image = prepare_image
        self.fingerprint = fingerprint

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return self.fingerprint.dim

    @property
    def edge(self) -> int | None:
        """To how many pixels the shorter edge of an image is brought; None where that is not known."""
        return self.prepare_image.edge if isinstance(self.prepare_image, Preprocessing) else None

    def prepare(self, image: Image.Image) -> Pixels:
        """Resize and crop one RGB image as the network wants it; safe to call from several threads."""
        return self.prepare_image(image)
