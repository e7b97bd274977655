"""The baseline to beat: a small copy of the image is its own vector. Needs no weights and no torch."""

import numpy as np
from PIL import Image

from lookalike.encode.preprocess import Pixels
from lookalike.schema.collection import Fingerprint
from lookalike.schema.product import Vectors

_SIDE = 16


class PixelEncoder:
    """Finds images alike that have similar colours in the same positions."""

    fingerprint = Fingerprint("pixels", "none", _SIDE * _SIDE * 3, "flatten", f"resize {_SIDE}x{_SIDE} bilinear")
    dim = fingerprint.dim
    edge: int | None = _SIDE

    def prepare(self, image: Image.Image) -> Pixels:
        """Shrink one RGB image: uint8, shape (16, 16, 3)."""
        return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))

    def encode_images(self, batch: Pixels) -> Vectors:
        """Flatten prepared images around middle grey: uint8 (n, 16, 16, 3) to float32 (n, 768) of unit length."""
        # No byte is 127.5, so no image becomes the zero vector.
        flat = batch.reshape(len(batch), -1).astype(np.float32) - 127.5
        vectors: Vectors = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        return vectors
