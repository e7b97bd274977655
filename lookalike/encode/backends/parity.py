"""Whether two ways of running a network give the same vectors."""

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFilter

from lookalike.schema.product import Vectors

SAME = 0.9999
"""The least cosine between two vectors of one image that counts as the same, in full precision."""

SAME_IN_HALF = 0.999
"""The same in half precision, where another order of additions shows."""


def random_images(count: int) -> Iterator[Image.Image]:
    """Draw images between noise and a blur, so that vectors differ."""
    random = np.random.default_rng(0)
    for place in range(count):
        noise = Image.fromarray(random.integers(0, 256, (300, 260, 3), dtype=np.uint8))
        yield noise.filter(ImageFilter.GaussianBlur(place))


def lowest_cosine(ones: Vectors, others: Vectors) -> float:
    """The least cosine between two vectors of one image."""
    return float(np.einsum("nd,nd->n", ones, others).min())
