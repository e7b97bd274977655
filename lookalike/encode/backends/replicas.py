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
    """Workers on several devices, each with a copy of one network: a batch goes to one that is free.

    Each takes `lanes` batches at the same time; more callers than that wait.
    """

    def __init__(self, workers: Sequence[Worker], lanes: int) -> None:
        self._free: SimpleQueue[Worker] = SimpleQueue()
        for worker in [*workers] * lanes:
            self._free.put(worker)

    def __call__(self, batch: Pixels) -> Vectors:
        """Encode prepared images: (n, …) to float32 (n, dim)."""
        worker = self._free.get()
        try:
            return worker(batch)
        finally:
            self._free.put(worker)


def replicate(encoder: TorchEncoder, devices: Sequence[torch.device], lanes: int) -> list[Worker]:
    """Have an encoder work on more devices than its own, which is the first of `devices`; words stay on that one.

    Returns a worker for each.
    """
    copies = [Worker(copy.deepcopy(encoder.network).to(device), device) for device in devices[1:]]
    workers = [encoder.worker, *copies]
    encoder.work = Replicas(workers, lanes)
    return workers
