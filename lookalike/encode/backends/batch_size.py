"""How many images make a batch on a GPU: measured once for a model and a device, then read from a cache."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lookalike.encode.backends.cache import cache_folder
from lookalike.encode.backends.throughput import measure_throughput
from lookalike.encode.backends.torch import TorchEncoder

MIN_BATCH, MAX_BATCH = 16, 256
_MIN_SPEEDUP = 1.05
_SECONDS = 0.5


def choose_batch_size(encoder: TorchEncoder, parallel_batches: int, on_message: Callable[[str], object]) -> int:
    """Return the batch size for an encoder on a CUDA device, measuring it where the cache has none."""
    cached = _cache_file(encoder)
    try:
        return int(json.loads(cached.read_text())["batch"])
    except (OSError, ValueError, KeyError, TypeError):  # missing or broken: measure again
        pass
    on_message(f"measuring the best batch size for {encoder.fingerprint.encoder} on {encoder.device} (only once) …")
    size = measure_batch_size(encoder, parallel_batches)
    on_message(f"the batch size is {size} (set another with --batch-size)")
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_text(json.dumps({"batch": size}))
    except OSError as error:
        on_message(f"the batch size cannot be saved ({error}); set LOOKALIKE_CACHE to a folder that can be written")
    return size


def measure_batch_size(encoder: TorchEncoder, parallel_batches: int, seconds: float = _SECONDS) -> int:
    """Measure batches of growing size, each for `seconds`; return the best size that fits into memory."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    image = encoder.prepare(Image.fromarray(noise))

    def measure(size: int) -> float:
        speed = measure_throughput(encoder, np.stack([image] * size), parallel_batches, seconds)
        return speed if encoder.worker.max_batch >= size else 0.0

    return min(double_while_faster(measure), encoder.worker.max_batch)


def double_while_faster(measure: Callable[[int], float]) -> int:
    """Double a size while that is at least 5 % faster; `measure` returns images per second, 0 if out of memory."""
    best, speed = MIN_BATCH, measure(MIN_BATCH)
    while best < MAX_BATCH:
        next_speed = measure(2 * best)
        if next_speed <= _MIN_SPEEDUP * speed:
            break
        best, speed = 2 * best, next_speed
    return best


def _cache_file(encoder: TorchEncoder) -> Path:
    """Return the file for this model, its precision, the device and the version of torch."""
    device = torch.cuda.get_device_properties(encoder.device)
    key = [encoder.fingerprint.to_json(), str(encoder.dtype), device.name, device.total_memory, torch.__version__]
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=12).hexdigest()
    return cache_folder() / "batches" / f"{digest}.json"
