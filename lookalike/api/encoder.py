"""Encoders without a collection: images or texts → embeddings."""

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
from lookalike.api.parameter_names import name_parameters
from lookalike.encode import registry as models
from lookalike.encode.encoder import Encoder, TextEncoder
from lookalike.encode.engine import Preparation
from lookalike.encode.image_limits import MAX_PIXELS
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
    (the faster of torch and ONNX Runtime, measured once on each machine, for some seconds), torch or onnx.
    `allow_private_urls` also fetches images from private networks. Raises EncoderUnavailable.

    >>> encoder = lookalike.load_encoder("pixels")
    >>> encoder.name, encoder.dim
    ('pixels', 768)
    """
    with name_parameters():
        encoder = models.load_encoder(check_text("name", name), device=device, dtype=dtype, engine=engine)
    return LoadedEncoder(encoder, ImageLoader(allow_private_urls))


class LoadedEncoder:
    """A loaded encoder: turns images, and with a text tower texts, into embeddings of unit length.

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
        """The name, hub id or directory that was passed to `load_encoder`."""
        return self._encoder.fingerprint.encoder

    @property
    def dim(self) -> int:
        """The length of an embedding."""
        return self._encoder.dim

    @property
    def has_text(self) -> bool:
        """Whether the encoder has a text tower, which `encode_texts` needs."""
        return isinstance(self._encoder, TextEncoder)

    def encode(self, images: ImageInput | Iterable[ImageInput]) -> Vectors:
        """Encode one image, or any iterable of them, to float32 (n, dim) of unit length.

        An image is a path, an http(s): or data: URL, the bytes of an image file, a PIL image, or a numpy array of uint8
        and shape (H, W, 3) or (H, W). A string is a path or a URL; for a text, call `encode_texts`. Images are read 16
        at a time, so a generator may yield millions. Raises BadImage for one that cannot be read, BadQuery for one of
        another type.

        >>> lookalike.load_encoder("pixels").encode("shop/queries/red-plain-mug.jpg").shape
        (1, 768)
        """
        if _is_one_image(images):
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
        many = [texts] if isinstance(texts, str) else texts
        if not isinstance(many, Iterable):
            raise wrong_type("the argument texts", texts, "str or an iterable of str")
        checked = (check_text(f"text {number}", text) for number, text in enumerate(many))
        return self._join(encoder.encode_texts(batch) for batch in _split_batches(checked))

    def _encode_all(self, images: Iterator[tuple[str, object]]) -> Vectors:
        prepare = partial(self._prepare, budget=PixelBudget(MAX_PIXELS))
        with ThreadPoolExecutor(count_cores()) as pool:
            return self._join(
                self._encoder.encode_images(np.stack(list(pool.map(prepare, batch))))
                for batch in _split_batches(images)
            )

    def _prepare(self, labelled: tuple[str, ImageInput], budget: PixelBudget) -> Pixels:
        label, image = labelled
        try:
            return Preparation(self._encoder.edge, self._encoder.prepare)(self._loader.load(image), budget)
        except BadImage as error:
            raise BadImage(f"{label}{error}{self._text_hint(image)}") from error
        except BadQuery as error:
            raise BadQuery(f"{label}{error}") from error

    def _text_hint(self, image: object) -> str:
        """What to do where a text was passed as an image."""
        if not isinstance(image, str):
            return ""
        owner = "" if self.has_text else f" of an encoder with a text tower, such as {models.TEXT_ENCODER!r}"
        return f"; for a text, call encode_texts{owner}"

    def _join(self, batches: Iterable[Vectors]) -> Vectors:
        return np.concatenate([np.empty((0, self.dim), dtype=np.float32), *batches])


def _is_one_image(images: object) -> bool:
    """Whether this is one image, not several; an array of four dimensions is a batch."""
    if isinstance(images, np.ndarray):
        return images.ndim < 4 and images.dtype != object
    return isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image)


def _split_batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield lists of 16 items, and read each list only when it is needed."""
    remaining = iter(items)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
