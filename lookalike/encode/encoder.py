"""What an encoder is: preprocessing and a model, which turn an image, and maybe a text, into a unit vector."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from PIL import Image

from lookalike.encode.preprocess import Pixels, Prepare, Preprocessing
from lookalike.schema.collection import Fingerprint
from lookalike.schema.product import Vectors


class Encoder(Protocol):
    """Encodes images: `prepare` takes one at a time, on any thread; `encode_images` takes a batch of prepared ones."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What must be equal for two vectors to be comparable."""

    @property
    def dim(self) -> int:
        """The length of a vector."""

    @property
    def edge(self) -> int | None:
        """To how many pixels `prepare` scales the shorter edge of an image, at most; None where that is unknown."""

    def prepare(self, image: Image.Image) -> Pixels:
        """Resize and crop one RGB image as the model needs it; safe to call from several threads."""

    def encode_images(self, batch: Pixels) -> Vectors:
        """Encode prepared images, stacked: (n, …) to float32 (n, dim) of unit length."""


@runtime_checkable
class TextEncoder(Encoder, Protocol):
    """An encoder with a text tower: a text's vector is near those of images that show what it says."""

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Encode texts: float32 (n, dim) of unit length."""


class BaseEncoder:
    """What all encoders with a model share: `prepare_image` prepares the images, whatever runs the model."""

    def __init__(self, prepare_image: Prepare, fingerprint: Fingerprint) -> None:
        self.prepare_image = prepare_image
        self.fingerprint = fingerprint

    @property
    def dim(self) -> int:
        """The length of a vector. From Encoder."""
        return self.fingerprint.dim

    @property
    def edge(self) -> int | None:
        """To how many pixels `prepare` scales the shorter edge of an image, at most. From Encoder."""
        return self.prepare_image.edge if isinstance(self.prepare_image, Preprocessing) else None

    def prepare(self, image: Image.Image) -> Pixels:
        """Resize and crop one RGB image as the model needs it. From Encoder."""
        return self.prepare_image(image)


def prepare_function(encoder: Encoder) -> Prepare:
    """Return what prepares an encoder's images: without the model where possible, so that pickling it is cheap."""
    return encoder.prepare_image if isinstance(encoder, BaseEncoder) else encoder.prepare


def preprocessing_of(encoder: Encoder) -> Preprocessing | None:
    """Return an encoder's Preprocessing; None where the encoder prepares images in another way."""
    prepare = prepare_function(encoder)
    return prepare if isinstance(prepare, Preprocessing) else None
