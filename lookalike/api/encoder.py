"""Encoders on their own: images or texts → embeddings."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from lookalike.api.inputs.checks import check_text, wrong_type
from lookalike.api.inputs.images import ACCEPTED, ImageInput, ImageLoader
from lookalike.encode import registry as models
from lookalike.encode.decode import MAX_PIXELS
from lookalike.encode.encoder import Encoder, TextEncoder
from lookalike.encode.engine import Preparation
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.preprocess import Pixels
from lookalike.encode.process_tuning import count_cores
from lookalike.schema.errors import BadImage, BadQuery
from lookalike.schema.product import Vectors

if TYPE_CHECKING:
    from lookalike.encode.backends.select import EngineName

Item = TypeVar("Item")

_BATCH = 16


def load_encoder(
    name: str = models.DEFAULT_ENCODER,
    *,
    device: str = "auto",
    dtype: str = "auto",
    engine: "EngineName" = "auto",
    allow_private_urls: bool = False,
) -> "LoadedEncoder":
    """Load an encoder by its short name, hub id or directory.

    `device` is auto, cpu, cuda, cuda:1 or mps; `dtype` auto, float32, float16 or bfloat16. On a CPU `engine` is auto
    (torch or ONNX Runtime: which is faster is measured once on each machine, for some seconds), torch or onnx.
    `allow_private_urls` lets it fetch images also from private networks. Raises EncoderUnavailable.

    >>> encoder = lookalike.load_encoder("pixels")
    >>> encoder.name, encoder.dim
    ('pixels', 768)
    """
    encoder = models.load_encoder(check_text("name", name), device=device, dtype=dtype, engine=engine)
    return LoadedEncoder(encoder, ImageLoader(allow_private_urls))


class LoadedEncoder:
    """An encoder that is loaded: images, and with a text tower texts, become embeddings of unit length.

    >>> encoder = lookalike.load_encoder("pixels")
    >>> mug, lamp = encoder.encode(["shop/queries/red-plain-mug.jpg", "shop/queries/teal-plain-lamp.jpg"])
    >>> bool(mug @ lamp < mug @ mug)
    True
    """

    def __init__(self, encoder: Encoder, loader: ImageLoader) -> None:
        self._encoder = encoder
        self._loader = loader

    def __repr__(self) -> str:
        return f"LoadedEncoder({self.name!r}, dim={self.dim})"

    @property
    def name(self) -> str:
        """The name, hub id or directory that it was loaded by."""
        return self._encoder.fingerprint.encoder

    @property
    def dim(self) -> int:
        """The length of an embedding."""
        return self._encoder.dim

    @property
    def has_text(self) -> bool:
        """Whether it has a text tower: then `encode_texts` works."""
        return isinstance(self._encoder, TextEncoder)

    def encode(self, images: ImageInput | Iterable[ImageInput]) -> Vectors:
        """Encode one image, or any iterable of them, to float32 (n, dim) of unit length.

        An image is a path, an http(s): or data: URL, the bytes of an image file, a PIL image, or a numpy array of uint8
        and shape (H, W, 3) or (H, W). A string is never a text: see `encode_texts`. Images are read as they are needed,
        some at a time, so that a generator may name millions. Raises BadImage for one that cannot be read, BadQuery for
        one of another type.

        >>> lookalike.load_encoder("pixels").encode("shop/queries/red-plain-mug.jpg").shape
        (1, 768)
        """
        if _is_one(images):
            return self._encode_all(iter([("", images)]))
        if not isinstance(images, Iterable):
            raise wrong_type("the argument images", images, f"{ACCEPTED}, or an iterable of these")
        return self._encode_all((f"image {number}: ", image) for number, image in enumerate(images))

    def encode_texts(self, texts: str | Iterable[str]) -> Vectors:
        """Encode one text, or any iterable of them, to float32 (n, dim) of unit length.

        Raises BadQuery for an encoder without a text tower.

        >>> lookalike.load_encoder("pixels").encode_texts("a red mug")
        Traceback (most recent call last):
            ...
        lookalike.schema.errors.BadQuery: 'pixels' has no text tower; 'clip' has one
        """
        encoder = self._encoder
        if not isinstance(encoder, TextEncoder):
            raise BadQuery(f"{self.name!r} has no text tower; {models.TEXT_ENCODER!r} has one")
        several = [texts] if isinstance(texts, str) else texts
        if not isinstance(several, Iterable):
            raise wrong_type("the argument texts", texts, "str or an iterable of str")
        checked = (check_text(f"text {number}", text) for number, text in enumerate(several))
        return self._join(encoder.encode_texts(batch) for batch in _batches(checked))

    def _encode_all(self, images: Iterator[tuple[str, object]]) -> Vectors:
        prepare = partial(self._prepare, budget=PixelBudget(MAX_PIXELS))
        with ThreadPoolExecutor(count_cores()) as pool:
            return self._join(
                self._encoder.encode_images(np.stack(list(pool.map(prepare, batch)))) for batch in _batches(images)
            )

    def _prepare(self, labelled: tuple[str, ImageInput], budget: PixelBudget) -> Pixels:
        label, image = labelled
        try:
            return Preparation(self._encoder.edge, self._encoder.prepare)(self._loader.load(image), budget)
        except BadImage as error:
            hint = "; texts go to encode_texts" if isinstance(image, str) and self.has_text else ""
            raise BadImage(f"{label}{error}{hint}") from error
        except BadQuery as error:
            raise BadQuery(f"{label}{error}") from error

    def _join(self, batches: Iterable[Vectors]) -> Vectors:
        return np.concatenate([np.empty((0, self.dim), dtype=np.float32), *batches])


def _is_one(images: object) -> bool:
    """Tell one image from several; an array of four dimensions is a batch."""
    if isinstance(images, np.ndarray):
        return images.ndim < 4 and images.dtype != object
    return isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image)


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Cut items into lists of 16, and read no further than the list at hand."""
    remaining = iter(items)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
