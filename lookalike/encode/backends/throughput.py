"""How fast an encoder is."""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat, takewhile

from lookalike.encode.encoder import Encoder
from lookalike.encode.preprocess import Pixels


def measure_throughput(encoder: Encoder, batch: Pixels, parallel_batches: int, seconds: float) -> float:
    """Measure images per second, with `parallel_batches` batches at the same time, for `seconds` after a warm-up."""
    encoder.encode_images(batch)
    with ThreadPoolExecutor(parallel_batches) as pool:
        started = time.perf_counter()
        deadline = started + seconds

        def encode_until_deadline(_thread: int) -> int:
            batches = takewhile(lambda _: time.perf_counter() < deadline, repeat(batch))
            return sum(len(encoder.encode_images(one)) for one in batches)

        encoded = sum(pool.map(encode_until_deadline, range(parallel_batches)))
        return encoded / (time.perf_counter() - started)
