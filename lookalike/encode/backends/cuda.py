"""How batches go to a CUDA device and their vectors come back: one batch is copied while another is computed."""

import threading

import torch
from torch import nn


class CudaStreams:
    """Runs a model on a CUDA device; called by two threads or more, so that one copies while another computes.

    Images are copied on a stream of their own. All computing shares the default stream: the memory that one batch frees
    can be used by the next one immediately.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._copy_stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch types only some
        self._launch_lock = threading.Lock()

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Run the model over a batch in the host's memory; the result is there too, in pinned memory."""
        # The device copies asynchronously only from pinned memory.
        pinned = batch.pin_memory()
        with torch.cuda.stream(self._copy_stream):
            pixels = pinned.to(self._device, non_blocking=True)
        copied = self._copy_stream.record_event()
        # Without the lock, the kernels of two batches would alternate. Then both batches would end at the same time,
        # and nothing would be computed while their vectors are copied back.
        with self._launch_lock:
            compute_stream = torch.cuda.current_stream(self._device)
            compute_stream.wait_event(copied)
            pixels.record_stream(compute_stream)
            vectors: torch.Tensor = self._model(pixels).to("cpu", non_blocking=True)
            # A blocking event: a core that polls for the end of the batch decodes no images.
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record(compute_stream)
        done.synchronize()
        return vectors
