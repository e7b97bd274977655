"""Networks that torch.compile has compiled: up to minutes before the first batch, for faster ones from then on."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from lookalike.encode.backends.parity import SAME, SAME_IN_HALF, lowest_cosine, random_images
from lookalike.encode.backends.torch import TorchEncoder
from lookalike.encode.backends.worker import Worker
from lookalike.encode.preprocess import Pixels
from lookalike.schema.errors import EncoderUnavailable

_SIZES = (3, 2, 1)
"""Torch compiles the first for just so many images, the second for any number of them, the third for one."""


def compile_models(encoder: TorchEncoder, workers: Sequence[Worker], tell: Callable[[str], object]) -> None:
    """Compile the network of each worker, before any thread uses it; `tell` hears of what takes a while.

    Raises EncoderUnavailable where torch cannot, or where the vectors become others.
    """
    name, same = encoder.fingerprint.encoder, SAME if encoder.dtype == torch.float32 else SAME_IN_HALF
    pixels = np.stack([encoder.prepare(image) for image in random_images(max(_SIZES))])
    # All workers share it; past it, torch goes on without compiling.
    limits = torch._dynamo.config
    limits.cache_size_limit = max(limits.cache_size_limit, 2 * len(_SIZES) * len(workers))
    tell(f"compiling {name}, which takes up to some minutes …")
    started = time.perf_counter()
    for worker in workers:
        cosine = _compiled(name, worker, pixels)
        # NaN is less than nothing.
        if not cosine >= same:
            raise EncoderUnavailable(
                f"compiled, {name} gives other vectors on {worker.device} (cosine {cosine:.6f}); take --engine torch"
            )
    tell(f"compiled in {time.perf_counter() - started:.0f} s")


def _compiled(name: str, worker: Worker, pixels: Pixels) -> float:
    """Compile, and tell the least cosine between the vectors before and after."""
    before = worker(pixels)
    worker.compile()
    try:
        return float(np.min([lowest_cosine(before[:size], worker(pixels[:size])) for size in _SIZES]))
    # The compiler, and the compilers that it calls, fail in as many ways as there are machines.
    except Exception as error:
        cause = getattr(error, "inner_exception", error)
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:300]
        raise EncoderUnavailable(f"{name} cannot be compiled here ({reason}); take --engine torch") from error
