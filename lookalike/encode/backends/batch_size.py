"""How many images make a batch on a GPU: measured once for a network and a device, and kept."""

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

SMALLEST, LARGEST = 16, 256
_PAYS = 1.05
_SECONDS = 0.5


def choose_batch_size(encoder: TorchEncoder, lanes: int, tell: Callable[[str], object]) -> int:
    """Tell the size of batches for an encoder on a CUDA device; `tell` hears of what takes a while."""
    kept = _kept_in(encoder)
    try:
        return int(json.loads(kept.read_text())["batch"])
    except (OSError, ValueError, KeyError, TypeError):  # it is measured again
        pass
    tell(f"measuring, once, how many images make a batch for {encoder.fingerprint.encoder} on {encoder.device} …")
    size = measure_batch_size(encoder, lanes)
    tell(f"{size} it is (--batch-size)")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"batch": size}))
    except OSError as error:
        tell(f"that cannot be kept ({error}); set LOOKALIKE_CACHE")
    return size


def measure_batch_size(encoder: TorchEncoder, lanes: int, seconds: float = _SECONDS) -> int:
    """Measure batches of growing size, each for so long, and tell the best one that fits into memory."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    image = encoder.prepare(Image.fromarray(noise))

    def measured(size: int) -> float:
        speed = measure_throughput(encoder, np.stack([image] * size), lanes, seconds)
        return speed if encoder.worker.most >= size else 0.0

    return min(doubled(measured), encoder.worker.most)


def doubled(measured: Callable[[int], float]) -> int:
    """Double a size until it is not 5 % faster any more; `measured` tells images a second, 0 where memory ends."""
    best, speed = SMALLEST, measured(SMALLEST)
    while best < LARGEST:
        next_speed = measured(2 * best)
        if next_speed <= _PAYS * speed:
            break
        best, speed = 2 * best, next_speed
    return best


def _kept_in(encoder: TorchEncoder) -> Path:
    """The file that names the network, its precision, the device and torch."""
    device = torch.cuda.get_device_properties(encoder.device)
    known = [encoder.fingerprint.to_json(), str(encoder.dtype), device.name, device.total_memory, torch.__version__]
    digest = hashlib.blake2b(json.dumps(known).encode(), digest_size=12).hexdigest()
    return cache_folder() / "batches" / f"{digest}.json"
