"""Runs a model on one device, in batches that fit into its memory."""

import sys

import numpy as np
import torch
from torch import nn

from lookalike.encode.backends.cuda import CudaStreams
from lookalike.encode.preprocess import Pixels
from lookalike.schema.errors import EncoderUnavailable
from lookalike.schema.product import Vectors


class Worker:
    """Runs a model over batches. A batch that does not fit into memory is halved, and so are all later ones.

    `max_batch` is how many images fit, as far as that is known.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.device = device
        self.max_batch = sys.maxsize
        self._model = model
        self._streams = CudaStreams(model, device) if device.type == "cuda" else None

    def compile(self) -> None:
        """Have torch compile the model when it runs the next time."""
        self._model.compile()

    def __call__(self, batch: Pixels) -> Vectors:
        """Encode prepared images: (n, …) to float32 (n, dim). Raises EncoderUnavailable where not even one fits."""
        vectors = self._try(batch) if len(batch) <= self.max_batch else None
        if vectors is not None:
            return vectors
        # Read it once: another thread may lower it meanwhile.
        size = self.max_batch
        chunks = [batch[start : start + size] for start in range(0, len(batch), size)]
        return np.concatenate([self(chunk) for chunk in chunks])

    def _try(self, batch: Pixels) -> Vectors | None:
        """Encode a batch at once; return None when it does not fit into memory."""
        try:
            return self._forward(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                reason = str(error).splitlines()[0]
                raise EncoderUnavailable(
                    f"the memory of device {str(self.device)!r} does not hold the model and one image ({reason}); "
                    "end other programs that use it, or use --dtype bfloat16, a smaller --encoder, or --device cpu"
                ) from error
        # Another thread may have found a lower number meanwhile.
        self.max_batch = min(self.max_batch, len(batch) // 2)
        return None

    def _forward(self, batch: Pixels) -> Vectors:
        with torch.inference_mode():
            # Copies only where numpy shows Pillow's own memory, which torch must not write to.
            pixels = torch.from_numpy(np.require(batch, requirements="W"))
            output = self._model(pixels.to(self.device)) if self._streams is None else self._streams(pixels)
            vectors: Vectors = output.cpu().numpy()
            return vectors
