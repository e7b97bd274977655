"""The encoder whose model torch runs."""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from lookalike.encode.backends.device import Placement
from lookalike.encode.backends.worker import Worker
from lookalike.encode.encoder import BaseEncoder
from lookalike.encode.preprocess import Normalization, Pixels, Prepare
from lookalike.schema.collection import Fingerprint
from lookalike.schema.product import Vectors

TextFeatures = Callable[[Sequence[str]], torch.Tensor]
"""Texts to features, (n, dim)."""


class TorchModel(nn.Module):
    """From prepared images to unit vectors; `features` goes from normalised images, (n, 3, …), to (n, dim)."""

    factor: torch.Tensor
    offset: torch.Tensor

    def __init__(self, features: nn.Module, normalization: Normalization, placement: Placement) -> None:
        super().__init__()
        self.dtype = placement.dtype
        self.features = features
        mean, std = (torch.tensor(values, device=placement.device).view(1, 3, 1, 1) for values in normalization)
        # (pixel / 255 - mean) / std, as one multiplication and one addition.
        self.register_buffer("factor", 1 / (255 * std))
        self.register_buffer("offset", -mean / std)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode uint8 (n, height, width, 3), or float32 (n, 3, height, width), normalised: float32 (n, dim)."""
        if pixels.dtype == torch.uint8:
            # A view of (n, height, width, 3) is channels-last already, which convolutions are fastest at.
            pixels = pixels.permute(0, 3, 1, 2) * self.factor + self.offset
        return to_unit_length(self.features(pixels.to(self.dtype)))


class TorchEncoder(BaseEncoder):
    """An encoder whose model torch runs: `worker` on `device`; `run_batch` may spread batches over more devices."""

    def __init__(self, model: TorchModel, prepare: Prepare, fingerprint: Fingerprint, placement: Placement) -> None:
        super().__init__(prepare, fingerprint)
        self.device, self.dtype = placement
        self.model = model.eval().requires_grad_(False)
        self.worker = Worker(self.model, self.device)
        self.run_batch: Callable[[Pixels], Vectors] = self.worker

    def encode_images(self, batch: Pixels) -> Vectors:
        """Encode prepared images, stacked: (n, …) to float32 (n, dim) of unit length. From Encoder."""
        return self.run_batch(batch)


class TorchTextEncoder(TorchEncoder):
    """A TorchEncoder whose model has a text tower as well."""

    def __init__(
        self,
        model: TorchModel,
        prepare: Prepare,
        fingerprint: Fingerprint,
        placement: Placement,
        text_features: TextFeatures,
    ) -> None:
        super().__init__(model, prepare, fingerprint, placement)
        self._text_features = text_features

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Encode texts: float32 (n, dim) of unit length. From TextEncoder."""
        with torch.inference_mode():
            vectors: Vectors = to_unit_length(self._text_features(texts)).cpu().numpy()
            return vectors


def to_unit_length(features: torch.Tensor) -> torch.Tensor:
    """Scale features to unit length, as float32: shape (n, dim)."""
    return functional.normalize(features.float(), dim=-1)
