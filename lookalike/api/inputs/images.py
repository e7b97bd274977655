"""Images in any form that the API accepts, as the bytes of an image file."""

import base64
import binascii
import io
import os
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import unquote_to_bytes

import numpy as np
import numpy.typing as npt
from PIL import Image

from lookalike.api.inputs.checks import wrong_type
from lookalike.api.parameter_names import name_parameters
from lookalike.encode.decode import load_rgb
from lookalike.encode.fetch.query_image import fetch_query_image
from lookalike.encode.image_limits import MAX_BYTES, MAX_PIXELS
from lookalike.ingest.sources.files import image_reader
from lookalike.schema.errors import BadImage

ImageInput: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | npt.NDArray[np.generic]
"""A path, an http(s): or data: URL, the bytes of an image file, a PIL image, or a uint8 array (H, W, 3) or (H, W)."""

ACCEPTED = (
    "a path (str or Path), an http(s): or data: URL, the bytes of an image file, a PIL image, "
    "or a numpy array of uint8 and shape (H, W, 3) or (H, W)"
)

_MAX_QUOTED = 200
"""How many characters of a path or URL an error message quotes."""


@dataclass(frozen=True, slots=True)
class ImageLoader:
    """Reads images; those at private addresses only with `allow_private_urls`. Safe to use from several threads."""

    allow_private_urls: bool = False
    lossless_format: Literal["BMP", "PNG"] = "BMP"
    """How pixels become bytes: BMP is fast, PNG is smaller, for a network."""

    def load(self, image: ImageInput) -> bytes:
        """Return an image as the bytes of a file. Raises BadImage, and BadQuery for a type that is not accepted."""
        if isinstance(image, bytes | bytearray | memoryview):
            return bytes(image)
        if isinstance(image, Image.Image):
            return self._from_pil(image)
        if isinstance(image, np.ndarray):
            return self._from_pil(Image.fromarray(np.ascontiguousarray(_check_array(image))))
        if isinstance(image, str | os.PathLike):
            return self._read(os.fsdecode(image))
        raise wrong_type("the image", image, ACCEPTED)

    def _read(self, reference: str) -> bytes:
        scheme = reference[:8].lower()
        if scheme.startswith("data:"):
            return _from_data_url(reference)
        if scheme.startswith(("http://", "https://")):
            with name_parameters():
                return fetch_query_image(reference, allow_private=self.allow_private_urls)
        try:
            return image_reader(allow_private=self.allow_private_urls).read(reference)[0]
        except (BadImage, ValueError) as error:  # a path with a null character is a ValueError
            raise BadImage(f"the image {reference[:_MAX_QUOTED]!a} cannot be used: {error}") from error

    def _from_pil(self, image: Image.Image) -> bytes:
        """Write the pixels without loss, upright and on white, as those of a file are decoded; `image` is unchanged."""
        if not 0 < image.width * image.height <= MAX_PIXELS:
            raise BadImage(f"the image is {image.width}×{image.height}; it needs 1 to {MAX_PIXELS} pixels")
        file = io.BytesIO()
        load_rgb(image).save(file, self.lossless_format, compress_level=1)
        return file.getvalue()


def name_image(image: object) -> str:
    """Return what an error calls an image: its path or URL, nothing for one without a name."""
    if not isinstance(image, str | os.PathLike):
        return ""
    reference = os.fsdecode(image)
    return "" if reference[:5].lower() == "data:" else f"{reference[:_MAX_QUOTED]!a}"


def _check_array(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not is_image:
        raise wrong_type("the image", array, ACCEPTED)
    return array


def _from_data_url(url: str) -> bytes:
    header, comma, payload = url.partition(",")
    if not comma:
        raise BadImage(f"the data: URL {url[:_MAX_QUOTED]!a} has no comma before its data")
    if len(payload) > 2 * MAX_BYTES:
        raise BadImage(f"the data: URL is too long; {MAX_BYTES} bytes is the limit of an image")
    content = unquote_to_bytes(payload)
    if not header.lower().endswith(";base64"):
        return content
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise BadImage(f"the data: URL is not Base64: {error}") from error
