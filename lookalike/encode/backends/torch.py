"""The encoder that runs a torch network."""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from lookalike.encode.backends.worker import Worker
from lookalike.encode.encoder import PreparingEncoder
from lookalike.encode.preprocess import Pixels, Prepare, Triple
from lookalike.schema.collection import Fingerprint
from lookalike.schema.product import Vectors

TextForward = Callable[[Sequence[str]], torch.Tensor]
"""Texts to features, (n, dim)."""


class TorchModel(nn.Module):
    """From prepared images to unit vectors; `features` goes from normalised images, (n, 3, …), to (n, dim)."""

    factor: torch.Tensor
    offset: torch.Tensor

    def __init__(self, features: nn.Module, scale: tuple[Triple, Triple], placement: tuple[torch.device, torch.dtype]):
        super().__init__()
        device, self.dtype = placement
        self.features = features
        mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in scale)
        # (pixel / 255 - mean) / std, as one multiplication and one addition.
        self.register_buffer("factor", 1 / (255 * std))
        self.register_buffer("offset", -mean / std)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode uint8 (n, height, width, 3), or float32 (n, 3, height, width), normalised: float32 (n, dim)."""
        if pixels.dtype == torch.uint8:
            # A view of (n, height, width, 3) is channels-last already, which convolutions are fastest at.
            pixels = pixels.permute(0, 3, 1, 2) * self.factor + self.offset
        return unit(self.features(pixels.to(self.dtype)))


class TorchEncoder(PreparingEncoder):
    """An encoder that runs a network with torch: its `worker` on one device, `work` on all that it has been given."""

    def __init__(
        self,
        network: TorchModel,
        prepare: Prepare,
        fingerprint: Fingerprint,
        placement: tuple[torch.device, torch.dtype],
    ) -> None:
        super().__init__(prepare, fingerprint)
        self.device, self.dtype = placement
        self.network = network.eval().requires_grad_(False)
        self.worker = Worker(self.network, self.device)
        self.work: Callable[[Pixels], Vectors] = self.worker

    def encode_images(self, batch: Pixels) -> Vectors:
        """Encode prepared images, stacked: (n, …) to float32 (n, dim) of unit length."""
        return self.work(batch)


class TorchTextEncoder(TorchEncoder):
    """A TorchEncoder whose model has a text tower as well."""

    text_forward: TextForward

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Encode texts: float32 (n, dim) of unit length."""
        with torch.inference_mode():
            vectors: Vectors = unit(self.text_forward(texts)).cpu().numpy()
            return vectors


def unit(features: torch.Tensor) -> torch.Tensor:
    """Bring features to unit length, as float32: shape (n, dim)."""
    return functional.normalize(features.float(), dim=-1)
