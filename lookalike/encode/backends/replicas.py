"""One encoder on several devices."""

import copy
from collections.abc import Sequence
from queue import SimpleQueue

import torch

from lookalike.encode.backends.torch import TorchEncoder
from lookalike.encode.backends.worker import Worker
from lookalike.encode.preprocess import Pixels
from lookalike.schema.product import Vectors


class Replicas:
    """Copies of one model, on several devices: a batch goes to a worker that is free.

    Each worker takes `parallel_batches` batches at the same time; further callers wait.
    """

    def __init__(self, workers: Sequence[Worker], parallel_batches: int) -> None:
        self._free: SimpleQueue[Worker] = SimpleQueue()
        for worker in [*workers] * parallel_batches:
            self._free.put(worker)

    def __call__(self, batch: Pixels) -> Vectors:
        """Encode prepared images: (n, …) to float32 (n, dim)."""
        worker = self._free.get()
        try:
            return worker(batch)
        finally:
            self._free.put(worker)


def replicate(encoder: TorchEncoder, devices: Sequence[torch.device], parallel_batches: int) -> list[Worker]:
    """Copy an encoder's model to further devices; the first of `devices` is the encoder's own, which keeps the texts.

    Returns a worker for each device.
    """
    copies = [Worker(copy.deepcopy(encoder.model).to(device), device) for device in devices[1:]]
    workers = [encoder.worker, *copies]
    encoder.run_batch = Replicas(workers, parallel_batches)
    return workers
