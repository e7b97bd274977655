"""Models that torch.compile has compiled: up to minutes before the first batch, then faster batches."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch._dynamo.exc import BackendCompilerFailed

from lookalike.encode.backends.parity import MIN_COSINE, MIN_COSINE_IN_HALF, lowest_cosine, random_images
from lookalike.encode.backends.torch import TorchEncoder
from lookalike.encode.backends.worker import Worker
from lookalike.encode.preprocess import Pixels
from lookalike.schema.errors import EncoderUnavailable

_SIZES = (3, 2, 1)
"""Torch compiles the first for exactly that batch size, the second for any size, the third for one image."""


def compile_models(encoder: TorchEncoder, workers: Sequence[Worker], on_message: Callable[[str], object]) -> None:
    """Compile the model of each worker, before any thread uses it.

    Raises EncoderUnavailable where torch cannot compile it, or where the compiled model gives other vectors.
    """
    name = encoder.fingerprint.encoder
    min_cosine = MIN_COSINE if encoder.dtype == torch.float32 else MIN_COSINE_IN_HALF
    pixels = np.stack([encoder.prepare(image) for image in random_images(max(_SIZES))])
    # All workers share the limit; beyond it, torch goes on without compiling.
    limits = torch._dynamo.config
    limits.cache_size_limit = max(limits.cache_size_limit, 2 * len(_SIZES) * len(workers))
    on_message(f"compiling {name}: this takes up to some minutes …")
    started = time.perf_counter()
    for worker in workers:
        cosine = _compile(name, worker, pixels)
        # Written so that NaN fails too.
        if not cosine >= min_cosine:
            raise EncoderUnavailable(
                f"compiled, {name} gives other vectors on {worker.device} (cosine {cosine:.6f}); use --engine torch"
            )
    on_message(f"compiled in {time.perf_counter() - started:.0f} s")


def _compile(name: str, worker: Worker, pixels: Pixels) -> float:
    """Compile a model; return the lowest cosine between the vectors before and after."""
    before = worker(pixels)
    worker.compile()
    try:
        return float(np.min([lowest_cosine(before[:size], worker(pixels[:size])) for size in _SIZES]))
    # The compiler, and the compilers that it calls, raise many kinds of errors.
    except Exception as error:
        cause = error.inner_exception if isinstance(error, BackendCompilerFailed) else error
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:300]
        raise EncoderUnavailable(f"{name} cannot be compiled here ({reason}); use --engine torch") from error
