"""How batches go to a CUDA device and their vectors come back: one batch is copied while another is computed."""

import threading

import torch
from torch import nn


class Streams:
    """A network on a CUDA device, to be called by two threads or more: one waits for its vectors, one brings images.

    Images are copied on a stream of their own; whatever is computed shares the default stream, where the memory
    that a batch leaves is the next one's at once.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network = network
        self._device = device
        self._copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch types only some
        self._launching = threading.Lock()

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Run the network over a batch in the host's memory; the result is there too, in pinned memory."""
        # Only from pinned memory does the device copy by itself.
        pinned = batch.pin_memory()
        with torch.cuda.stream(self._copying):
            pixels = pinned.to(self._device, non_blocking=True)
        arrived = self._copying.record_event()
        # What two batches launch in turns would be done at the same time, and nothing computed while both are fetched.
        with self._launching:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_event(arrived)
            pixels.record_stream(computing)
            vectors: torch.Tensor = self._network(pixels).to("cpu", non_blocking=True)
            # A core that spins for the end of the batch decodes no images.
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record(computing)
        done.synchronize()
        return vectors
