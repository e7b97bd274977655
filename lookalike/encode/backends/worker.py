"""A network at work on one device, in portions that fit into its memory."""

import sys

import numpy as np
import torch
from torch import nn

from lookalike.encode.backends.cuda import Streams
from lookalike.encode.preprocess import Pixels
from lookalike.schema.errors import EncoderUnavailable
from lookalike.schema.product import Vectors


class Worker:
    """Runs a network over batches; where the memory of its device ends, half a batch goes on, and from then on.

    `most` is how many images fit, as far as that is known.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.device = device
        self.most = sys.maxsize
        self._whole = network
        self._network = Streams(network, device) if device.type == "cuda" else network

    def compile(self) -> None:
        """Have torch compile the network, with the next batches."""
        self._whole.compile()

    def __call__(self, batch: Pixels) -> Vectors:
        """Encode prepared images: (n, …) to float32 (n, dim). Raises EncoderUnavailable where not even one fits."""
        vectors = self._attempt(batch) if len(batch) <= self.most else None
        if vectors is not None:
            return vectors
        # Once: another thread may find out meanwhile that it is less.
        most = self.most
        portions = [batch[start : start + most] for start in range(0, len(batch), most)]
        return np.concatenate([self(portion) for portion in portions])

    def _attempt(self, batch: Pixels) -> Vectors | None:
        """Encode a batch at once; None when it does not fit."""
        try:
            return self._forward(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                reason = str(error).splitlines()[0]
                raise EncoderUnavailable(
                    f"the memory of device {str(self.device)!r} does not hold the network and one image ({reason}); "
                    "end what else uses it, or take --dtype bfloat16, a smaller --encoder, or --device cpu"
                ) from error
        # Another thread may have found less meanwhile.
        self.most = min(self.most, len(batch) // 2)
        return None

    def _forward(self, batch: Pixels) -> Vectors:
        with torch.inference_mode():
            # Copied only when Pillow's own memory comes along, which torch must not write to.
            pixels = torch.from_numpy(np.require(batch, requirements="W"))
            if not isinstance(self._network, Streams):
                pixels = pixels.to(self.device)
            vectors: Vectors = self._network(pixels).cpu().numpy()
            return vectors
