"""From the arguments of `Collection.search` to the parts of a search.query.Query."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from lookalike.api.inputs.checks import check_number, check_text, wrong_type
from lookalike.api.inputs.images import ImageInput, ImageLoader, name_image
from lookalike.schema.errors import BadQuery
from lookalike.search.query import Part


class QueryPart(TypedDict, total=False):
    """One example to be like, or unlike: exactly one of the first five keys, and its weight."""

    image: ImageInput
    text: str
    product_id: str
    image_id: str
    vector: Sequence[float] | npt.NDArray[np.floating[Any]]
    weight: float


Images: TypeAlias = ImageInput | Sequence[ImageInput]
"""An image, or several that make one query."""

Parts: TypeAlias = str | QueryPart | Sequence[str | QueryPart]
"""A product id, a part, or several of either."""

_ACCEPTED = "a product id (str), a dict such as {'text': 'red', 'weight': 0.5}, or a list of these"
_KEYS = ("image", "text", "product_id", "image_id", "vector", "weight")


@dataclass(frozen=True, slots=True)
class PartReader:
    """Reads the parts of a query; `loader` reads their images."""

    loader: ImageLoader

    def read_main(self, image: Images | None, text: str | None, product: str | None) -> Iterator[Part]:
        """Read the arguments `image`, `text` and `product`. Raises BadQuery, BadImage."""
        for one in _list_images(image):
            yield Part(image=self.loader.load(one), name=name_image(one))
        if text is not None:
            yield Part(text=check_text("text", text))
        if product is not None:
            yield Part(product_id=check_text("product", product))

    def read(self, name: str, parts: Parts | None) -> Iterator[Part]:
        """Read the argument `like` or `unlike`. Raises BadQuery, BadImage."""
        if parts is None:
            return
        many = [parts] if isinstance(parts, str | Mapping) else parts
        if not isinstance(many, Sequence) or isinstance(many, bytes | bytearray | memoryview):
            raise wrong_type(name, parts, _ACCEPTED)
        for part in many:
            yield self._read_one(name, part)

    def _read_one(self, name: str, part: object) -> Part:
        if isinstance(part, str):
            return Part(product_id=part)
        if not isinstance(part, Mapping):
            hint = "; write an image as {'image': …}" if isinstance(part, Image.Image | bytes | os.PathLike) else ""
            raise BadQuery(f"{wrong_type(f'a part of {name}', part, _ACCEPTED)}{hint}")
        unknown = [key for key in part if key not in _KEYS]
        if unknown:
            raise BadQuery(f"{name} has a part with the key {unknown[0]!r}; a part takes {', '.join(_KEYS)}")
        texts = {key: check_text(f"{key} of {name}", part[key]) for key in _KEYS[1:4] if part.get(key) is not None}
        return Part(
            image=self.loader.load(part["image"]) if part.get("image") is not None else None,
            vector=_vector(part["vector"]) if part.get("vector") is not None else None,
            weight=check_number(f"weight of {name}", part.get("weight", 1.0)),
            name=name_image(part.get("image")),
            **texts,
        )


def _list_images(image: Images | None) -> Sequence[ImageInput]:
    if image is None:
        return ()
    if not isinstance(image, list | tuple):
        # A type checker cannot know that no other sequence is an image.
        return (cast("ImageInput", image),)
    if not image:
        raise BadQuery("image is an empty list; give it an image, or leave it out")
    return image


def _vector(value: object) -> list[float]:
    try:
        vector = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise wrong_type("a vector", value, "a sequence of numbers") from None
    if vector.ndim != 1:
        raise wrong_type("a vector", vector, "one of shape (dim,), such as a row of what encode returns")
    numbers: list[float] = vector.tolist()
    return numbers
