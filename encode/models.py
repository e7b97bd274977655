"""From the name of an encoder to the encoder."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from encode.encoder import Encoder

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


KNOWN = (
    KnownEncoder(DEFAULT, "ImageNet network that comes with the installation", 1280, words=False),
    KnownEncoder("clip", "OpenAI CLIP ViT-B/32: pictures and words", 512, True, "openai/clip-vit-base-patch32"),
    KnownEncoder("resnet50", "ResNet-50, ImageNet", 2048, False, "microsoft/resnet-50"),
    KnownEncoder("pixels", "a 16×16 copy of the picture: the baseline to beat", 768, words=False),
)


def load_encoder(name: str = DEFAULT, *, device: str = "auto", dtype: str = "auto") -> "Encoder":
    """Load an encoder by its short name, hub id or checkpoint directory.

    `device` is auto, cpu, cuda, cuda:N or mps; `dtype` auto, float32, float16 or bfloat16. Torch is imported here
    and not before. Raises EncoderUnavailable when weights or device are not to be had.
    """
    if name == "pixels":
        from encode.pixels import PixelEncoder

        return PixelEncoder()
    if name == DEFAULT:
        from encode.bundled import load_bundled

        return load_bundled(device, dtype)
    from encode.pretrained import load_pretrained

    checkpoints = {known.name: known.checkpoint for known in KNOWN if known.checkpoint}
    return load_pretrained(name, checkpoints.get(name, name), device, dtype)
