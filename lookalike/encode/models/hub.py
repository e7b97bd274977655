"""Any checkpoint that transformers' AutoModel loads, from a model hub or a local directory, as an encoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from torch import nn
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from lookalike.encode.backends.device import resolve_device, weights_hash
from lookalike.encode.backends.torch import TorchEncoder, TorchModel, TorchTextEncoder
from lookalike.encode.models.processor import prepare_like
from lookalike.encode.models.weights import resolve_checkpoint
from lookalike.schema.collection import Fingerprint
from lookalike.schema.errors import BadQuery, EncoderUnavailable

_HUB_TIMEOUT = 10.0
_PROJECTION, _CLASS_TOKEN, _POOLED = "image-text projection", "class token", "pooled output"


def load_pretrained(name: str, checkpoint: str, device: str, dtype: str) -> TorchEncoder:
    """Load a checkpoint by hub id or directory. The fingerprint calls it `name`, a directory by its full path.

    A model with a text tower (CLIP, SigLIP, …) gives its projected features, a vision transformer its class token,
    a convolutional or hierarchical model its pooled output. Raises EncoderUnavailable.
    """
    placement = resolve_device(device, dtype)
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers types only some
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    location = resolve_checkpoint(checkpoint)
    name = location if Path(location).is_dir() else name
    model = _load(AutoModel, name, location, dtype=torch.float32).eval().requires_grad_(False)
    images = prepare_like(_load(AutoImageProcessor, name, location, backend="pil"))
    pooling = _choose_pooling(model)
    digest = weights_hash(model.state_dict())
    model.to(placement.device, placement.dtype, memory_format=torch.channels_last)

    features = _Pooled(model, pooling)
    dim = features(images.grey_batch().to(placement.device, placement.dtype)).shape[-1]
    fingerprint = Fingerprint(name, digest, dim, pooling, images.description)
    torch_model = TorchModel(features, images.normalization, placement)
    if not _has_text_tower(model):
        return TorchEncoder(torch_model, images.prepare, fingerprint, placement)
    return TorchTextEncoder(torch_model, images.prepare, fingerprint, placement, _TextTower(model, name, location))


class _Pooled(nn.Module):
    """A model whose output is one vector per image."""

    def __init__(self, model: Any, pooling: str) -> None:
        super().__init__()
        self.model, self.pooling = model, pooling

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return _pool(self.model, self.pooling, images)


class _TextTower:
    """The text side of a model: texts to features, (n, dim). Its tokenizer is loaded with the first text."""

    def __init__(self, model: Any, name: str, location: str) -> None:
        self._model, self._name, self._location = model, name, location
        self._tokenizer: Any = None

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        if self._tokenizer is None:
            self._tokenizer = _load(AutoTokenizer, self._name, self._location)
        config = self._model.config
        # SigLIP was trained on texts padded to their full length, and reads the last position.
        padding = "max_length" if config.model_type.startswith("siglip") else True
        tokens = self._tokenizer(
            list(texts),
            padding=padding,
            truncation=True,
            max_length=config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self._model.device)
        if not tokens["input_ids"].numel():
            raise BadQuery(
                f"{list(texts)!r} has no words that {self._name} knows",
                public=f"{list(texts)!r} has no words that the encoder knows; use other words",
            )
        return _as_tensor(self._model.get_text_features(**tokens))


def _load(kind: Any, name: str, location: str, **options: Any) -> Any:
    """Load from a directory or the cache; go to the hub only for what is in neither. Raises EncoderUnavailable."""
    try:
        return kind.from_pretrained(location, local_files_only=True, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        if Path(location).is_dir():
            raise EncoderUnavailable(f"{name}: {location} holds no such checkpoint ({_first_line(error)})") from error
    _check_hub(name, location)
    try:
        return kind.from_pretrained(location, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise EncoderUnavailable(f"{name}: {location!r} could not be loaded ({_first_line(error)})") from error


def _check_hub(name: str, repository: str) -> None:
    """Raise EncoderUnavailable within seconds; loading would retry for half a minute."""
    try:
        HfApi().model_info(repository, timeout=_HUB_TIMEOUT)
    except RepositoryNotFoundError as error:
        raise EncoderUnavailable(
            f"encoder {name!r}: there is no directory and no public model {repository!r}; "
            "run lookalike encoders for a list of names"
        ) from error
    # httpx and requests errors share no ancestor but OSError or Exception, depending on the hub's version.
    except Exception as error:
        raise EncoderUnavailable(
            f"encoder {name!r}: the weights {repository!r} are not on this machine, and the model hub cannot be "
            f"reached ({_first_line(error)}). Use --encoder efficientnet-lite0, whose weights are installed; "
            "or --encoder /path/to/a/checkpoint; or run hf download "
            f"{repository} on a machine with internet access, copy its cache here, and set HF_HOME to it"
        ) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, HfHubHTTPError) or not text:
        return text or type(error).__name__
    return text.splitlines()[0][:200]


def _has_text_tower(model: Any) -> bool:
    # transformers' classes of image-text models share no base class, and remote code may bring others.
    return hasattr(model, "get_text_features")


def _choose_pooling(model: Any) -> str:
    """Choose how a model's output becomes one vector, by what the model consists of."""
    # See _has_text_tower.
    if hasattr(model, "get_image_features"):
        return _PROJECTION
    if any(name.endswith("cls_token") for name, _ in model.named_parameters()):
        return _CLASS_TOKEN
    return _POOLED


def _pool(model: Any, pooling: str, images: torch.Tensor) -> torch.Tensor:
    if pooling == _PROJECTION:
        return _as_tensor(model.get_image_features(pixel_values=images))
    output = model(pixel_values=images)
    if pooling == _CLASS_TOKEN:
        return _as_tensor(output.last_hidden_state[:, 0])
    # The output classes of models without a pooling layer lack the attribute.
    pooled = getattr(output, "pooler_output", None)
    if pooled is not None:
        return _as_tensor(pooled.flatten(1))
    hidden = output.last_hidden_state
    return _as_tensor(hidden.mean(1) if hidden.dim() == 3 else hidden.mean((2, 3)))


def _as_tensor(output: Any) -> torch.Tensor:
    """Unwrap projected features: transformers 5 puts them into an output object, earlier versions do not."""
    features: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return features
