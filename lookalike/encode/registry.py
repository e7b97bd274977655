"""From the name of an encoder to the encoder.

To add an encoder family:

1. Write `models/<family>.py` with a function `load_<family>(device, dtype) -> TorchEncoder`. The shortest example is
   `models/efficientnet.py`: a torch module and its Preprocessing, Fingerprint and TorchModel.
2. Write a function that finds its weight files in `models/weights.py`. It must not import torch: an encoder that
   ONNX Runtime runs is loaded without torch.
3. Join the two in a function like `_load_efficientnet` below, and add a line with it to REGISTRY.

A checkpoint that transformers' AutoModel loads needs a line in REGISTRY only, and no line at all by its hub id.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from lookalike.encode.models.weights import find_checkpoint_files, find_efficientnet_files, resolve_checkpoint
from lookalike.schema.errors import EncoderUnavailable
from lookalike.schema.spelling import find_nearest

if TYPE_CHECKING:
    from lookalike.encode.backends.select import EngineName, EngineOptions
    from lookalike.encode.backends.torch import TorchEncoder
    from lookalike.encode.encoder import Encoder

DEFAULT_ENCODER = "efficientnet-lite0"
TEXT_ENCODER = "clip"


@dataclass(frozen=True, slots=True)
class RegisteredEncoder:
    """An encoder that has a short name; `has_text` says whether it has a text tower.

    Either transformers loads it from `checkpoint`, a hub id, and downloads its weights at first use. Or `load` loads
    it, and `find_weights` lists its weight files; without `find_weights` it has no weights.
    """

    name: str
    description: str
    dim: int
    has_text: bool
    checkpoint: str | None = None
    load: "Callable[[EngineOptions], Encoder] | None" = None
    find_weights: Callable[[], list[Path]] | None = None


class LoadOptions(TypedDict, total=False):
    """Where and how an encoder runs; see load_encoder."""

    device: str
    dtype: str
    engine: "EngineName"
    parallel_batches: int
    on_message: Callable[[str], object]


def _load_efficientnet(options: "EngineOptions") -> "Encoder":
    from lookalike.encode.backends.select import select_engine

    def load() -> "TorchEncoder":
        from lookalike.encode.models.efficientnet import load_efficientnet

        return load_efficientnet(options.device, options.dtype)

    return select_engine(find_efficientnet_files, load, options)


def _load_pixels(_: "EngineOptions") -> "Encoder":
    from lookalike.encode.models.pixels import PixelEncoder

    return PixelEncoder()


REGISTRY = (
    RegisteredEncoder(
        DEFAULT_ENCODER,
        "ImageNet model that comes with the installation",
        1280,
        has_text=False,
        load=_load_efficientnet,
        find_weights=find_efficientnet_files,
    ),
    RegisteredEncoder("clip", "OpenAI CLIP ViT-B/32: images and texts", 512, True, "openai/clip-vit-base-patch32"),
    RegisteredEncoder("resnet50", "ResNet-50, ImageNet", 2048, False, "microsoft/resnet-50"),
    RegisteredEncoder("pixels", "a 16×16 copy of the image: the baseline to beat", 768, False, load=_load_pixels),
)


def load_encoder(name: str = DEFAULT_ENCODER, **options: Unpack[LoadOptions]) -> "Encoder":
    """Load an encoder by its short name, hub id, checkpoint directory or Towhee operator (`towhee:…`).

    `device` is auto, cpu, cuda, cuda:N or mps, and of several the first; `dtype` auto, float32, float16 or bfloat16.
    `engine` on a CPU is auto (measure once which is faster), cached (what was measured before), torch or onnx; on any
    device compile: torch, which the caller then gives to compile_models. `parallel_batches` is how many
    batches the caller encodes at the same time. `on_message` gets a line of progress before and after a slow step.
    Torch is imported here and not before, and not at all where ONNX Runtime takes its place. Raises EncoderUnavailable
    when the weights, the device or the engine cannot be used.
    """
    check_encoder_name(name)
    from lookalike.encode.backends.select import EngineOptions

    engine_options = EngineOptions(**options)
    registered = _find_registered(name)
    if registered is not None and registered.load is not None:
        return registered.load(engine_options)
    if name.startswith("towhee:"):
        from lookalike.encode.towhee.encoder import load_towhee

        return load_towhee(name, engine_options.on_message)
    return _load_checkpoint(name, _checkpoint_of(name), engine_options)


def check_encoder_name(name: str) -> None:
    """Raise EncoderUnavailable for a name that is mistyped, without asking the model hub, whose ids have a slash."""
    if _find_registered(name) or name.startswith("towhee:"):
        return
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if name and (Path(resolve_checkpoint(name)).is_dir() or ("/" in name and not is_path)):
        return
    # Old models of the hub have an id without a slash.
    if name and not is_path and find_checkpoint_files(name):
        return
    problem = f"{name!r} is not a directory." if is_path else f"there is no encoder {name!r}{_suggest_encoder(name)}"
    names = ", ".join(encoder.name for encoder in REGISTRY)
    raise EncoderUnavailable(
        f"{problem} `lookalike encoders` lists those that have a name: {names}. The id of a model on the hub, such as "
        "facebook/dinov2-small, or the directory of a checkpoint works too"
    )


def has_weights(name: str) -> bool:
    """Return whether an encoder's weights are on this machine. Raises EncoderUnavailable for an impossible name."""
    registered = _find_registered(name)
    if registered is None or registered.checkpoint is not None:
        files = find_checkpoint_files(_checkpoint_of(name))
    elif registered.find_weights is not None:
        files = registered.find_weights()
    else:
        return True
    return any(file.exists() and file.suffix != ".json" for file in files)


def _load_checkpoint(name: str, checkpoint: str, options: "EngineOptions") -> "Encoder":
    from lookalike.encode.backends.select import select_engine

    def load() -> "TorchEncoder":
        from lookalike.encode.models.hub import load_pretrained

        return load_pretrained(name, checkpoint, options.device, options.dtype)

    return select_engine(partial(find_checkpoint_files, checkpoint), load, options)


def _find_registered(name: str) -> RegisteredEncoder | None:
    return next((encoder for encoder in REGISTRY if encoder.name == name), None)


def _checkpoint_of(name: str) -> str:
    registered = _find_registered(name)
    return name if registered is None or registered.checkpoint is None else registered.checkpoint


def _suggest_encoder(name: str) -> str:
    checkpoints = [encoder.checkpoint for encoder in REGISTRY if encoder.checkpoint is not None]
    near = find_nearest(name, [*(encoder.name for encoder in REGISTRY), *checkpoints])
    return f"; did you mean {near!r}?" if near else "."
