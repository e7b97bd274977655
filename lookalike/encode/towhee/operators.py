"""Our encoders as Towhee operators: import this, and pipes have ops.lookalike.image_embedding and text_embedding.

Nothing is asked of Towhee's hub.
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
from lookalike.encode.registry import DEFAULT, WITH_WORDS, load_encoder
from lookalike.schema.errors import BadImage, EncoderUnavailable
from lookalike.schema.product import Vector

Picture = str | Path | bytes | np.ndarray[Any, Any]
"""A path, the bytes of a file, or uint8 pixels, RGB unless they are a Towhee image that says BGR."""


@register(name="lookalike/image_embedding")
class ImageEmbedding:
    """A picture becomes a unit vector, (dim,); a list of pictures, encoded together, a list of vectors.

    `bad` says whether a picture that cannot be read or decoded raises BadImage, which ends the whole call of a pipe, or
    the BadImage is returned in the place of its vector (a pipe drops what is None, and the id beside it). Raises
    EncoderUnavailable when it is made.
    """

    def __init__(
        self,
        encoder: str = DEFAULT,
        device: str = "auto",
        dtype: str = "auto",
        bad: Literal["raise", "return"] = "raise",
    ) -> None:
        self._encoder = load_encoder(encoder, device=device, dtype=dtype)
        self._bad = bad

    def __call__(self, picture: Picture | list[Picture]) -> Vector | BadImage | list[Vector | BadImage]:
        """Encode one picture, or a list of them."""
        if isinstance(picture, list):
            return self._vectors(picture)
        [vector] = self._vectors([picture])
        return vector

    def _vectors(self, pictures: Sequence[Picture]) -> list[Vector | BadImage]:
        prepared = [self._prepared(picture) for picture in pictures]
        good = [pixels for pixels in prepared if not isinstance(pixels, BadImage)]
        vectors = iter(self._encoder.encode_images(np.stack(good)) if good else ())
        return [pixels if isinstance(pixels, BadImage) else next(vectors) for pixels in prepared]

    def _prepared(self, picture: Picture) -> Pixels | BadImage:
        try:
            return self._encoder.prepare(_image(picture))
        except BadImage as error:
            if self._bad == "raise":
                raise
            return error


@register(name="lookalike/text_embedding")
class TextEmbedding:
    """Words become a unit vector, (dim,), where pictures of them are; a list of texts a list of vectors.

    Raises EncoderUnavailable when it is made, also for an encoder without words.
    """

    def __init__(self, encoder: str = WITH_WORDS, device: str = "auto", dtype: str = "auto") -> None:
        loaded = load_encoder(encoder, device=device, dtype=dtype)
        if not isinstance(loaded, TextEncoder):
            raise EncoderUnavailable(f"{encoder!r} knows pictures but no words; {WITH_WORDS!r} does")
        self._encoder = loaded

    def __call__(self, text: str | list[str]) -> Vector | list[Vector]:
        """Encode one text, or a list of them."""
        if isinstance(text, str):
            vectors = self._encoder.encode_texts([text])
            return np.asarray(vectors[0])
        return list(self._encoder.encode_texts(text)) if text else []


def _image(picture: Picture) -> Image.Image:
    if isinstance(picture, bytes):
        return decode(picture)
    if isinstance(picture, str | Path):
        try:
            return decode(Path(picture).read_bytes())
        except OSError as error:
            raise BadImage(f"{picture}: the file cannot be read: {error.strerror or error}") from error
    pixels = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise BadImage(f"pixels are {pixels.dtype} of shape {pixels.shape}, not uint8 (height, width, 3)")
    reverse = getattr(picture, "mode", "RGB") == "BGR"
    return Image.fromarray(np.ascontiguousarray(pixels[..., ::-1] if reverse else pixels))
