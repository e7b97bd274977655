"""Measures whether torch or ONNX Runtime runs a model faster on this CPU, and writes the result into the cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lookalike.encode.backends.cache import EngineCache, EngineRecord
from lookalike.encode.backends.parity import MIN_COSINE, lowest_cosine, random_images
from lookalike.encode.backends.throughput import measure_throughput
from lookalike.encode.encoder import TextEncoder, preprocessing_of
from lookalike.encode.preprocess import Pixels
from lookalike.encode.process_tuning import count_cores

if TYPE_CHECKING:
    from lookalike.encode.backends.onnx import OnnxEncoder
    from lookalike.encode.backends.torch import TorchEncoder

SECONDS = 1.0
"""How long each engine is measured."""

_BATCH = 16
_CHUNK_SIZES = (1, 2, 4, 8, _BATCH)
_NEARLY_FASTEST = 0.97


@dataclass(frozen=True, slots=True)
class _OnnxResult:
    """What was measured of a model exported to ONNX; `error` says why it cannot be used."""

    lowest_cosine: float = 0.0
    chunk_size: int = _BATCH
    images_per_second: float | None = None
    error: str = ""


def measure_engines(cache: EngineCache, encoder: "TorchEncoder", parallel_batches: int) -> EngineRecord:
    """Export a model to ONNX, measure both engines, and write what is found into the cache. Raises OSError."""
    batch = np.stack([encoder.prepare(image) for image in random_images(_BATCH)])
    with cache.new_folder() as folder:
        onnx = _measure_onnx(encoder, folder / cache.model_file.name, batch, parallel_batches)
        with _torch_threads(threads_per_batch(parallel_batches)):
            speeds = {"torch": measure_throughput(encoder, batch, parallel_batches, SECONDS)}
        if onnx.images_per_second is not None:
            speeds = {"onnx": onnx.images_per_second, **speeds}
        if onnx.error:
            for file in folder.iterdir():
                file.unlink()
        record = EngineRecord(
            engine="torch" if onnx.error else max(("torch", "onnx"), key=speeds.__getitem__),
            images_per_second=speeds,
            chunk_size=onnx.chunk_size,
            lowest_cosine=onnx.lowest_cosine,
            export_error=onnx.error,
            fingerprint=encoder.fingerprint,
            preprocessing=preprocessing_of(encoder),
            has_text=isinstance(encoder, TextEncoder),
        )
        cache.write(record, folder)
    return record


def threads_per_batch(parallel_batches: int) -> int:
    """Return how many threads each of so many batches at the same time gets."""
    return max(1, count_cores() // parallel_batches)


def choose_chunk_size(speeds: dict[int, float]) -> tuple[int, float]:
    """Return the smallest chunk size that is nearly as fast as the fastest one, and its images per second."""
    fast_enough = _NEARLY_FASTEST * max(speeds.values())
    return next((size, speeds[size]) for size in sorted(speeds) if speeds[size] >= fast_enough)


def _measure_onnx(encoder: "TorchEncoder", model_file: Path, batch: Pixels, parallel_batches: int) -> _OnnxResult:
    from lookalike.encode.backends.onnx import CpuShare, OnnxEncoder, export_onnx

    try:
        export_onnx(encoder, model_file)
        share = CpuShare(threads_per_batch(parallel_batches), _BATCH)
        onnx = OnnxEncoder(model_file, encoder.prepare_image, encoder.fingerprint, share)
        cosine = lowest_cosine(encoder.encode_images(batch), onnx.encode_images(batch))
        chunk_size, speed = choose_chunk_size(_measure_chunk_sizes(onnx, batch, parallel_batches))
    # Exporting fails in as many ways as there are models.
    except Exception as error:  # noqa: BLE001
        first_line = str(error).strip().splitlines()[0][:200] if str(error) else ""
        return _OnnxResult(error=f"{type(error).__name__}: {first_line}")
    # Written so that NaN fails too.
    same = cosine >= MIN_COSINE
    return _OnnxResult(cosine, chunk_size, speed, "" if same else f"its vectors are not the same (cosine {cosine:.6f})")


def _measure_chunk_sizes(encoder: "OnnxEncoder", batch: Pixels, parallel_batches: int) -> dict[int, float]:
    """Measure images per second for each chunk size."""
    speeds = {}
    for chunk_size in _CHUNK_SIZES:
        encoder.chunk_size = chunk_size
        speeds[chunk_size] = measure_throughput(encoder, batch, parallel_batches, SECONDS / 2)
    return speeds


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
