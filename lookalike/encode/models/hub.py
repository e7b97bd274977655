"""Any checkpoint that transformers' AutoModel loads, from a model hub or a local directory, as an encoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from PIL import Image
from torch import nn
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from lookalike.encode.backends.device import resolve_device, weights_hash
from lookalike.encode.backends.torch import TorchEncoder, TorchModel, TorchTextEncoder
from lookalike.encode.models.weights import resolve_checkpoint
from lookalike.encode.preprocess import Pixels, Prepare, Preprocessing, Triple
from lookalike.schema.collection import Fingerprint
from lookalike.schema.errors import BadQuery, EncoderUnavailable

_HUB_TIMEOUT = 10.0
_NO_CHANGE: tuple[Triple, Triple] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def load_pretrained(name: str, checkpoint: str, device: str, dtype: str) -> TorchEncoder:
    """Load a checkpoint by hub id or directory; `name` is what the fingerprint calls it, a directory by its full path.

    A model with a text tower (CLIP, SigLIP, …) encodes by its projections, a vision transformer by its class token,
    a convolutional or hierarchical network by its pooled output. Raises EncoderUnavailable.
    """
    place, precision = resolve_device(device, dtype)
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers types only some
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    where = resolve_checkpoint(checkpoint)
    name = where if Path(where).is_dir() else name
    model = _load(AutoModel, name, where, dtype=torch.float32).eval().requires_grad_(False)
    processor = _load(AutoImageProcessor, name, where, backend="pil")
    prepare, scale, described = _preprocessing(processor)
    pooling = _pooling(model)
    digest = weights_hash(model.state_dict())
    model.to(place, precision, memory_format=torch.channels_last)

    features = _Pooled(model, pooling)
    dim = features(_blank(prepare, scale).to(place, precision)).shape[-1]
    fingerprint = Fingerprint(name, digest, dim, pooling, described)
    network = TorchModel(features, scale, (place, precision))
    if not hasattr(model, "get_text_features"):
        return TorchEncoder(network, prepare, fingerprint, (place, precision))
    encoder = TorchTextEncoder(network, prepare, fingerprint, (place, precision))
    encoder.text_forward = _TextTower(model, name, where)
    return encoder


class _Pooled(nn.Module):
    """A model whose output is one vector an image."""

    def __init__(self, model: Any, pooling: str) -> None:
        super().__init__()
        self.model, self.pooling = model, pooling

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return _features(self.model, self.pooling, images)


class _TextTower:
    """The text side of a model; its tokenizer is loaded with the first question."""

    def __init__(self, model: Any, name: str, where: str) -> None:
        self._model, self._name, self._where = model, name, where
        self._tokenizer: Any = None

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        if self._tokenizer is None:
            self._tokenizer = _load(AutoTokenizer, self._name, self._where)
        length = self._model.config.text_config.max_position_embeddings
        # SigLIP was trained on texts padded to their full length and reads the last place.
        padding = "max_length" if self._model.config.model_type.startswith("siglip") else True
        tokens = self._tokenizer(
            list(texts), padding=padding, truncation=True, max_length=length, return_tensors="pt"
        ).to(self._model.device)
        if not tokens["input_ids"].numel():
            raise BadQuery(f"{list(texts)!r} has no words that {self._name} knows")
        return _tensor(self._model.get_text_features(**tokens))


def _load(kind: Any, name: str, where: str, **options: Any) -> Any:
    """Load from a directory or the cache; only what is in neither is asked of the hub."""
    try:
        return kind.from_pretrained(where, local_files_only=True, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        if Path(where).is_dir():
            raise EncoderUnavailable(f"{name}: {where} holds no such checkpoint ({_first_line(error)})") from error
    _ask_hub(name, where)
    try:
        return kind.from_pretrained(where, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise EncoderUnavailable(f"{name}: {where!r} could not be loaded ({_first_line(error)})") from error


def _ask_hub(name: str, where: str) -> None:
    """Fail in seconds where loading would retry for half a minute."""
    try:
        HfApi().model_info(where, timeout=_HUB_TIMEOUT)
    except RepositoryNotFoundError as error:
        raise EncoderUnavailable(
            f"encoder {name!r}: there is no directory and no public model {where!r}; 'lookalike encoders' lists names"
        ) from error
    # httpx and requests errors share no ancestor but OSError or Exception, depending on the hub's version.
    except Exception as error:
        raise EncoderUnavailable(
            f"encoder {name!r}: the weights {where!r} are not on this machine and the model hub is not reached "
            f"({_first_line(error)}). Ways out: --encoder efficientnet-lite0, whose weights are installed; "
            "a directory with the checkpoint, --encoder /path/to/it; or download it where there is a network "
            f"(hf download {where}) and set HF_HOME to that cache"
        ) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, HfHubHTTPError) or not text:
        return text or type(error).__name__
    return text.splitlines()[0][:200]


def _pooling(model: Any) -> str:
    """How a model's output becomes one vector, by what the model is made of."""
    if hasattr(model, "get_image_features"):
        return "image-text projection"
    if any(name.endswith("cls_token") for name, _ in model.named_parameters()):
        return "class token"
    return "pooled output"


def _features(model: Any, pooling: str, images: torch.Tensor) -> torch.Tensor:
    if pooling == "image-text projection":
        return _tensor(model.get_image_features(pixel_values=images))
    output = model(pixel_values=images)
    if pooling == "class token":
        return _tensor(output.last_hidden_state[:, 0])
    pooled = getattr(output, "pooler_output", None)
    if pooled is not None:
        return _tensor(pooled.flatten(1))
    hidden = output.last_hidden_state
    return _tensor(hidden.mean(1) if hidden.dim() == 3 else hidden.mean((2, 3)))


def _tensor(output: Any) -> torch.Tensor:
    """Transformers 5 wraps projected features in an output object; before, they came bare."""
    features: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return features


def _preprocessing(processor: Any) -> tuple[Prepare, tuple[Triple, Triple], str]:
    """Take our own preprocessing where it gives the processor's pixels on a drawn image, else the processor."""
    ours = _from_processor(processor)
    if ours is not None and _agree(ours, processor):
        return ours, (ours.mean, ours.std), ours.describe()

    def theirs(image: Image.Image) -> Pixels:
        return _processed(processor, image)

    return theirs, _NO_CHANGE, f"{type(processor).__name__}"


def _from_processor(processor: Any) -> Preprocessing | None:
    """Read resize, crop, mean and standard deviation from a processor; None for one that does something else."""
    size, crop = processor.size, getattr(processor, "crop_size", None)
    crop_pct = getattr(processor, "crop_pct", None)
    shortest = size.shortest_edge
    if crop_pct and shortest:
        height = width = shortest
        shortest = int(shortest / crop_pct) if shortest < 384 else None
    elif getattr(processor, "do_center_crop", False) and crop and shortest:
        height, width = crop.height, crop.width
    elif size.height and size.width:
        height, width, shortest = size.height, size.width, None
    else:
        return None
    mean = tuple(processor.image_mean) if processor.do_normalize else (0.0, 0.0, 0.0)
    std = tuple(processor.image_std) if processor.do_normalize else (1.0, 1.0, 1.0)
    return Preprocessing(height, width, shortest, Image.Resampling(int(processor.resample)), mean, std)


def _agree(ours: Preprocessing, processor: Any) -> bool:
    """Compare the pixels of both on a drawn image that is neither square nor flat."""
    across, down = np.meshgrid(np.arange(601), np.arange(427))
    drawn = np.stack([across % 256, down % 256, (across * down) // 97 % 256], axis=2).astype(np.uint8)
    image = Image.fromarray(drawn)
    theirs = _processed(processor, image)
    mine = (ours(image) / 255.0 - np.array(ours.mean)) / np.array(ours.std)
    return theirs.shape[1:] == mine.shape[:2] and bool(np.abs(theirs - mine.transpose(2, 0, 1)).mean() < 0.01)


def _processed(processor: Any, image: Image.Image) -> Pixels:
    pixels: Pixels = processor(images=image, return_tensors="np")["pixel_values"][0]
    return pixels


def _blank(prepare: Prepare, scale: tuple[Triple, Triple]) -> torch.Tensor:
    """A grey image as the network gets it, to see how long its vectors are: shape (1, 3, height, width)."""
    pixels = torch.from_numpy(np.array(prepare(Image.new("RGB", (64, 64), "grey")))).unsqueeze(0)
    return pixels.permute(0, 3, 1, 2) / 255 if scale is not _NO_CHANGE else pixels
