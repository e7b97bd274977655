"""Our encoders as Towhee operators. Importing this registers ops.lookalike.image_embedding and text_embedding.

Towhee's hub is not used.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from towhee import register

from lookalike.encode.decode import decode
from lookalike.encode.encoder import TextEncoder
from lookalike.encode.preprocess import Pixels
from lookalike.encode.registry import DEFAULT_ENCODER, TEXT_ENCODER, load_encoder
from lookalike.schema.errors import BadImage, EncoderUnavailable
from lookalike.schema.product import Vector

ImageInput = str | Path | bytes | np.ndarray[Any, Any]
"""A path, the bytes of a file, or uint8 pixels of shape (height, width, 3): RGB, or a Towhee image in mode BGR."""


@register(name="lookalike/image_embedding")
class ImageEmbedding:
    """Turns an image into a unit vector, (dim,); a list of images, encoded as one batch, into a list of vectors.

    An image that cannot be read or decoded raises BadImage, which ends the whole call of a pipe. With `bad="return"`,
    that BadImage is returned instead of a vector. (A pipe would drop None, and the id beside it.)
    Constructing it raises EncoderUnavailable.
    """

    def __init__(
        self,
        encoder: str = DEFAULT_ENCODER,
        device: str = "auto",
        dtype: str = "auto",
        bad: Literal["raise", "return"] = "raise",
    ) -> None:
        self._encoder = load_encoder(encoder, device=device, dtype=dtype)
        self._bad = bad

    def __call__(self, image: ImageInput | list[ImageInput]) -> Vector | BadImage | list[Vector | BadImage]:
        """Encode one image, or a list of them."""
        if isinstance(image, list):
            return self._encode(image)
        [vector] = self._encode([image])
        return vector

    def _encode(self, images: Sequence[ImageInput]) -> list[Vector | BadImage]:
        prepared = [self._prepare(image) for image in images]
        good = [pixels for pixels in prepared if not isinstance(pixels, BadImage)]
        vectors = iter(self._encoder.encode_images(np.stack(good)) if good else ())
        return [pixels if isinstance(pixels, BadImage) else next(vectors) for pixels in prepared]

    def _prepare(self, image: ImageInput) -> Pixels | BadImage:
        try:
            return self._encoder.prepare(_open(image))
        except BadImage as error:
            if self._bad == "raise":
                raise
            return error


@register(name="lookalike/text_embedding")
class TextEmbedding:
    """Turns a text into a unit vector, (dim,), near those of images of it; a list of texts into a list of vectors.

    Constructing it raises EncoderUnavailable, also for an encoder without a text tower.
    """

    def __init__(self, encoder: str = TEXT_ENCODER, device: str = "auto", dtype: str = "auto") -> None:
        loaded = load_encoder(encoder, device=device, dtype=dtype)
        if not isinstance(loaded, TextEncoder):
            raise EncoderUnavailable(f"{encoder!r} has no text tower; {TEXT_ENCODER!r} has one")
        self._encoder = loaded

    def __call__(self, text: str | list[str]) -> Vector | list[Vector]:
        """Encode one text, or a list of them."""
        if isinstance(text, str):
            vectors = self._encoder.encode_texts([text])
            return np.asarray(vectors[0])
        return list(self._encoder.encode_texts(text)) if text else []


def _open(image: ImageInput) -> Image.Image:
    if isinstance(image, bytes):
        return decode(image)
    if isinstance(image, str | Path):
        try:
            return decode(Path(image).read_bytes())
        except OSError as error:
            raise BadImage(f"{image}: the file cannot be read: {error.strerror or error}") from error
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise BadImage(f"pixels are {pixels.dtype} of shape {pixels.shape}, not uint8 (height, width, 3)")
    # Towhee's images and video frames are arrays with a mode; numpy's own arrays have none.
    is_bgr = getattr(image, "mode", "RGB") == "BGR"
    return Image.fromarray(np.ascontiguousarray(pixels[..., ::-1] if is_bgr else pixels))
