"""Which engine runs a network on a CPU: torch, or ONNX Runtime where it gives the same vectors faster."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from lookalike.encode.backends.cache import EngineCache, EngineRecord
from lookalike.encode.backends.parity import SAME, lowest_cosine, random_images
from lookalike.encode.backends.throughput import measure_throughput
from lookalike.encode.encoder import Encoder, TextEncoder
from lookalike.encode.preprocess import Pixels, Prepare, Preprocessing
from lookalike.encode.process_tuning import count_cores
from lookalike.schema.errors import EncoderUnavailable

if TYPE_CHECKING:
    from lookalike.encode.backends.onnx import OnnxEncoder
    from lookalike.encode.backends.torch import TorchEncoder

EngineName = Literal["auto", "kept", "torch", "onnx", "compile"]
"""auto measures, once, which is faster; kept takes what was measured, and torch where nothing was.

compile is torch, whose network the caller has compiled.
"""

_BY_TORCH = ("torch", "compile")
_BATCH = 16
_PORTIONS = (1, 2, 4, 8, _BATCH)
_ABOUT = 0.97
_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What is wanted of an encoder: where it runs, how precisely, by what, and how many batches at the same time."""

    device: str = "auto"
    dtype: str = "auto"
    engine: EngineName = "kept"
    lanes: int = 1
    tell: Callable[[str], object] = lambda message: None
    """Is told what takes a while."""


def select_engine(files: Callable[[], list[Path]], load: Callable[[], "TorchEncoder"], wish: EngineOptions) -> Encoder:
    """Load an encoder; what is kept of it without loading torch. `files` are its weights.

    Raises EncoderUnavailable, also where ONNX is demanded and cannot be had.
    """
    if wish.engine in _BY_TORCH or wish.device not in ("auto", "cpu") or wish.dtype not in ("auto", "float32"):
        return _only_torch(load, wish)
    if wish.device == "cpu" or _no_gpu():
        found = _recalled(files(), load, wish)
        if found is not None:
            return found
    encoder = load()
    if encoder.device.type != "cpu":
        return _only_torch(lambda: encoder, wish)
    try:
        shelf = EngineCache(files())
        kept = shelf.read()
        if wish.engine == "onnx" or (wish.engine == "auto" and kept is None):
            kept = _with_network(shelf, kept, encoder, wish)
    except OSError as error:
        if wish.engine == "onnx":
            raise EncoderUnavailable(f"the network cannot be kept as ONNX ({error}); set LOOKALIKE_CACHE") from error
        wish.tell(f"which engine is faster cannot be kept ({error}), so it is torch; set LOOKALIKE_CACHE")
        return encoder
    if kept is None or not _wanted(kept, wish):
        return encoder
    return _onnx(shelf, kept, encoder.prepare_image, load, wish)


def _only_torch(load: Callable[[], "TorchEncoder"], wish: EngineOptions) -> Encoder:
    if wish.engine == "onnx":
        raise EncoderUnavailable("--engine onnx runs on the CPU in float32; leave out --dtype and take --device cpu")
    return load()


def _no_gpu() -> bool:
    """Tell, without torch, that it would find no GPU; False when that is not sure."""
    if "+cpu" in version("torch"):
        return True
    devices = Path("/dev")
    # The last two are those of Windows' Linux, and of small boards.
    gpus = [*devices.glob("nvidia[0-9]*"), *(devices / name for name in ("kfd", "dxg", "nvhost-gpu"))]
    return sys.platform == "linux" and not any(gpu.exists() for gpu in gpus)


def _recalled(files: list[Path], load: Callable[[], "TorchEncoder"], wish: EngineOptions) -> Encoder | None:
    """The encoder as it is kept, without torch; None when it is not, or only together with torch."""
    if not files:
        return None
    try:
        shelf = EngineCache(files)
    except OSError:  # said where it is made
        return None
    kept = shelf.read()
    if kept is None or kept.preprocessing is None or kept.why_not or not _wanted(kept, wish):
        return None
    try:
        return _onnx(shelf, kept, kept.preprocessing, load, wish)
    except EncoderUnavailable:  # it is made again
        shelf.clear()
        return None


def _wanted(kept: EngineRecord, wish: EngineOptions) -> bool:
    return kept.engine == "onnx" or wish.engine == "onnx"


def _onnx(
    shelf: EngineCache, kept: EngineRecord, prepare: Prepare, load: Callable[[], "TorchEncoder"], wish: EngineOptions
) -> Encoder:
    from lookalike.encode.backends.onnx import OnnxEncoder, OnnxTextEncoder, Slice

    part = Slice(_threads_of(wish.lanes), kept.portion)
    if not kept.words:
        return OnnxEncoder(shelf.network, prepare, kept.fingerprint, part)
    return OnnxTextEncoder(shelf.network, prepare, kept.fingerprint, part, partial(_words, load))


def _words(load: Callable[[], "TorchEncoder"]) -> TextEncoder:
    return cast("TextEncoder", load())  # what is kept of it says that it knows words


def _with_network(
    shelf: EngineCache, kept: EngineRecord | None, encoder: "TorchEncoder", wish: EngineOptions
) -> EngineRecord:
    """Export and measure, unless that was done. Raises OSError, and EncoderUnavailable where ONNX is demanded."""
    name = encoder.fingerprint.encoder
    if kept is None:
        wish.tell(f"measuring, once, whether torch or ONNX Runtime runs {name} faster on this machine …")
        kept = _measured(shelf, encoder, wish.lanes)
        rates = ", ".join(f"{engine} {rate:.0f} images/s" for engine, rate in kept.rates.items())
        wish.tell(f"{rates}: {kept.engine} it is (--engine)")
    if wish.engine == "onnx" and kept.why_not:
        raise EncoderUnavailable(f"{name} cannot be had as ONNX: {kept.why_not}; take --engine torch")
    return kept


def _measured(shelf: EngineCache, encoder: "TorchEncoder", lanes: int) -> EngineRecord:
    from lookalike.encode.backends.onnx import OnnxEncoder, Slice, export

    with shelf.new() as made:
        network, why_not, cosine, portion = made / shelf.network.name, "", 0.0, _BATCH
        pixels = np.stack([encoder.prepare(image) for image in random_images(_BATCH)])
        rates = {}
        try:
            export(encoder, network)
            part = Slice(_threads_of(lanes), _BATCH)
            onnx = OnnxEncoder(network, encoder.prepare_image, encoder.fingerprint, part)
            cosine = lowest_cosine(encoder.encode_images(pixels), onnx.encode_images(pixels))
            portion, rates["onnx"] = fewest(_by_portion(onnx, pixels, lanes))
        # Exporting fails in as many ways as there are networks.
        except Exception as error:  # noqa: BLE001
            why_not = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error) else ''}"
        with _torch_threads(_threads_of(lanes)):
            rates["torch"] = measure_throughput(encoder, pixels, lanes, _SECONDS)
        # NaN is less than nothing.
        if not why_not and not cosine >= SAME:
            why_not = f"its vectors are not the same (cosine {cosine:.6f})"
        if why_not:
            for file in made.iterdir():
                file.unlink()
        faster = "onnx" if not why_not and rates["onnx"] > rates["torch"] else "torch"
        ours = encoder.prepare_image if isinstance(encoder.prepare_image, Preprocessing) else None
        words = isinstance(encoder, TextEncoder)
        kept = EngineRecord(faster, rates, portion, cosine, why_not, encoder.fingerprint, ours, words)
        shelf.put(kept, made)
    return kept


def _by_portion(encoder: "OnnxEncoder", pixels: Pixels, lanes: int) -> dict[int, float]:
    """How many images a second it encodes with so many at once."""
    rates = {}
    for portion in _PORTIONS:
        encoder.portion = portion
        rates[portion] = measure_throughput(encoder, pixels, lanes, _SECONDS / 2)
    return rates


def fewest(rates: dict[int, float]) -> tuple[int, float]:
    """Of portions that are about as fast as the fastest one, the smallest, and how fast that is."""
    enough = _ABOUT * max(rates.values())
    return next((portion, rates[portion]) for portion in sorted(rates) if rates[portion] >= enough)


def _threads_of(lanes: int) -> int:
    """Threads for each of so many batches at the same time."""
    return max(1, count_cores() // lanes)


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
