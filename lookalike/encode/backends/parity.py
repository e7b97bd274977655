"""Whether two ways of running a model give the same vectors."""

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFilter

from lookalike.schema.product import Vectors

MIN_COSINE = 0.9999
"""The lowest cosine between two vectors of one image that count as the same, in full precision."""

MIN_COSINE_IN_HALF = 0.999
"""The same in half precision, where another order of additions makes more of a difference."""


def random_images(count: int) -> Iterator[Image.Image]:
    """Generate images from noise to a blur, so that their vectors differ."""
    random = np.random.default_rng(0)
    for radius in range(count):
        noise = Image.fromarray(random.integers(0, 256, (300, 260, 3), dtype=np.uint8))
        yield noise.filter(ImageFilter.GaussianBlur(radius))


def lowest_cosine(ones: Vectors, others: Vectors) -> float:
    """Return the lowest cosine between the two vectors of one image: both (n, dim), of unit length."""
    return float(np.einsum("nd,nd->n", ones, others).min())
