"""The encoder that runs a torch network."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from encode.preprocess import Pixels, Prepare, Triple
from schema.collection import Fingerprint
from schema.product import Vectors

Forward = Callable[[torch.Tensor], torch.Tensor]
"""Normalised pictures, (n, 3, height, width), to features, (n, dim)."""

TextForward = Callable[[Sequence[str]], torch.Tensor]
"""Texts to features, (n, dim)."""


class TorchEncoder:
    """An encoder that runs a torch network on one device."""

    def __init__(
        self,
        forward: Forward,
        prepare: Prepare,
        fingerprint: Fingerprint,
        scale: tuple[Triple, Triple],
        placement: tuple[torch.device, torch.dtype],
    ) -> None:
        self.fingerprint = fingerprint
        self.device, self.dtype = placement
        self._forward = forward
        self._prepare = prepare
        mean, std = (torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in scale)
        # (pixel / 255 - mean) / std, as one multiplication and one addition.
        self._factor, self._offset = 1 / (255 * std), -mean / std

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return self.fingerprint.dim

    def prepare(self, image: Image.Image) -> Pixels:
        """Resize and crop one RGB picture: uint8 (height, width, 3), or float32 (3, height, width), normalised."""
        return self._prepare(image)

    def encode_images(self, batch: Pixels) -> Vectors:
        """Encode prepared pictures, stacked: (n, …) to float32 (n, dim) of unit length."""
        with torch.inference_mode():
            # Copied only when Pillow's own memory comes along, which torch must not write to.
            pixels = torch.from_numpy(np.require(batch, requirements="W")).to(self.device)
            if pixels.dtype == torch.uint8:
                # A view of (n, height, width, 3) is channels-last already, which convolutions are fastest at.
                pixels = pixels.permute(0, 3, 1, 2) * self._factor + self._offset
            return unit(self._forward(pixels.to(self.dtype)))


class TorchTextEncoder(TorchEncoder):
    """A TorchEncoder whose model has a text tower as well."""

    text_forward: TextForward

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Encode texts: float32 (n, dim) of unit length."""
        with torch.inference_mode():
            return unit(self.text_forward(texts))


def unit(features: torch.Tensor) -> Vectors:
    """Bring features to unit length, as float32 on the CPU: shape (n, dim)."""
    vectors: Vectors = functional.normalize(features.float(), dim=-1).cpu().numpy().astype(np.float32, copy=False)
    return vectors
