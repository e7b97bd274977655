"""Which engine runs a model on a CPU: torch, or ONNX Runtime where it gives the same vectors faster."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from lookalike.encode.backends.cache import EngineCache, EngineRecord
from lookalike.encode.backends.measure import measure_engines, threads_per_batch
from lookalike.encode.encoder import Encoder, TextEncoder
from lookalike.encode.preprocess import Prepare
from lookalike.schema.errors import EncoderUnavailable

if TYPE_CHECKING:
    from lookalike.encode.backends.torch import TorchEncoder

EngineName = Literal["auto", "cached", "torch", "onnx", "compile"]
"""auto measures, once, which is faster; cached takes what was measured before, and torch where nothing was.

compile is torch; the caller then compiles the model.
"""

_RUN_BY_TORCH = ("torch", "compile")
_SET_CACHE = "set LOOKALIKE_CACHE to a folder that can be written"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Where an encoder runs, in which precision, by which engine, and how many batches at the same time."""

    device: str = "auto"
    dtype: str = "auto"
    engine: EngineName = "cached"
    parallel_batches: int = 1
    on_message: Callable[[str], object] = lambda message: None
    """Gets a line of progress before and after a slow step."""


def select_engine(
    find_weights: Callable[[], list[Path]], load: Callable[[], "TorchEncoder"], options: EngineOptions
) -> Encoder:
    """Load an encoder with the engine that the options name; `load` loads it with torch.

    An ONNX model that is in the cache is loaded without torch. Raises EncoderUnavailable, also where ONNX is demanded
    and cannot be used.
    """
    if not _may_run_onnx(options):
        _refuse_onnx(options)
        return load()
    if options.device == "cpu" or _has_no_gpu():
        cached = _load_without_torch(find_weights(), load, options)
        if cached is not None:
            return cached
    encoder = load()
    if encoder.device.type != "cpu":
        _refuse_onnx(options)
        return encoder
    try:
        cache = EngineCache(find_weights())
        record = cache.read()
        if options.engine == "onnx" or (options.engine == "auto" and record is None):
            record = _require_record(cache, record, encoder, options)
    except OSError as error:
        if options.engine == "onnx":
            raise EncoderUnavailable(f"the ONNX model cannot be saved ({error}); {_SET_CACHE}") from error
        options.on_message(f"which engine is faster cannot be saved, so torch is used ({error}); {_SET_CACHE}")
        return encoder
    if record is None or not _is_onnx_chosen(record, options):
        return encoder
    return _load_onnx(cache, record, encoder.prepare_image, load, options)


def as_torch_encoder(encoder: Encoder) -> "TorchEncoder | None":
    """Return the encoder where torch runs it, else None. Never imports torch, which takes seconds."""
    # An encoder that torch runs has imported this module already.
    if "lookalike.encode.backends.torch" not in sys.modules:
        return None
    from lookalike.encode.backends.torch import TorchEncoder

    return encoder if isinstance(encoder, TorchEncoder) else None


def _may_run_onnx(options: EngineOptions) -> bool:
    on_cpu = options.device in ("auto", "cpu") and options.dtype in ("auto", "float32")
    return on_cpu and options.engine not in _RUN_BY_TORCH


def _refuse_onnx(options: EngineOptions) -> None:
    if options.engine == "onnx":
        raise EncoderUnavailable("--engine onnx runs on the CPU in float32; use --device cpu and leave out --dtype")


def _has_no_gpu() -> bool:
    """Return, without torch, whether torch would find no GPU; False when that is uncertain."""
    if "+cpu" in version("torch"):
        return True
    devices = Path("/dev")
    # The last two are those of Windows' Linux, and of small boards.
    gpus = [*devices.glob("nvidia[0-9]*"), *(devices / name for name in ("kfd", "dxg", "nvhost-gpu"))]
    return sys.platform == "linux" and not any(gpu.exists() for gpu in gpus)


def _load_without_torch(
    weights: list[Path], load: Callable[[], "TorchEncoder"], options: EngineOptions
) -> Encoder | None:
    """Load an encoder from the cache; None where it is not there, or where it needs torch."""
    if not weights:
        return None
    try:
        cache = EngineCache(weights)
    except OSError:  # reported when the cache is written
        return None
    record = cache.read()
    if record is None or record.preprocessing is None or record.export_error or not _is_onnx_chosen(record, options):
        return None
    try:
        return _load_onnx(cache, record, record.preprocessing, load, options)
    except EncoderUnavailable:  # a broken file: export it again
        cache.clear()
        return None


def _is_onnx_chosen(record: EngineRecord, options: EngineOptions) -> bool:
    return record.engine == "onnx" or options.engine == "onnx"


def _load_onnx(
    cache: EngineCache,
    record: EngineRecord,
    prepare: Prepare,
    load: Callable[[], "TorchEncoder"],
    options: EngineOptions,
) -> Encoder:
    from lookalike.encode.backends.onnx import CpuShare, OnnxEncoder, OnnxTextEncoder

    share = CpuShare(threads_per_batch(options.parallel_batches), record.chunk_size)
    if not record.has_text:
        return OnnxEncoder(cache.model_file, prepare, record.fingerprint, share)
    return OnnxTextEncoder(cache.model_file, prepare, record.fingerprint, share, partial(_load_text_encoder, load))


def _load_text_encoder(load: Callable[[], "TorchEncoder"]) -> TextEncoder:
    return cast("TextEncoder", load())  # the record says that it has a text tower


def _require_record(
    cache: EngineCache, record: EngineRecord | None, encoder: "TorchEncoder", options: EngineOptions
) -> EngineRecord:
    """Measure where there is no record yet. Raises OSError, and EncoderUnavailable where ONNX is demanded."""
    name = encoder.fingerprint.encoder
    if record is None:
        options.on_message(f"measuring whether torch or ONNX Runtime runs {name} faster on this machine (only once) …")
        record = measure_engines(cache, encoder, options.parallel_batches)
        speeds = ", ".join(f"{engine} {speed:.0f} images/s" for engine, speed in record.images_per_second.items())
        options.on_message(f"measured: {speeds}; --engine auto uses {record.engine}")
    if options.engine == "onnx" and record.export_error:
        raise EncoderUnavailable(f"{name} cannot be exported to ONNX: {record.export_error}; use --engine torch")
    return record
