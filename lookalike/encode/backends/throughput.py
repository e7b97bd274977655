"""How fast an encoder is."""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat, takewhile

from lookalike.encode.encoder import Encoder
from lookalike.encode.preprocess import Pixels


def measure_throughput(encoder: Encoder, pixels: Pixels, lanes: int, seconds: float) -> float:
    """Images a second, with `lanes` such batches at the same time, measured for so long after a first one."""
    encoder.encode_images(pixels)
    with ThreadPoolExecutor(lanes) as pool:
        started = time.perf_counter()
        until = started + seconds

        def encoded(_lane: int) -> int:
            batches = takewhile(lambda _: time.perf_counter() < until, repeat(pixels))
            return sum(len(encoder.encode_images(batch)) for batch in batches)

        return sum(pool.map(encoded, range(lanes))) / (time.perf_counter() - started)
