"""From the image processor of a transformers checkpoint to our own preprocessing, where that gives the same pixels."""

from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from lookalike.encode.preprocess import Normalization, Pixels, Prepare, Preprocessing

_ALREADY_NORMALIZED = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class ImagePreparation(NamedTuple):
    """What prepares images; how the encoder normalises what comes out; one line about it for the fingerprint."""

    prepare: Prepare
    normalization: Normalization
    description: str

    def grey_batch(self) -> torch.Tensor:
        """Return one grey image as the model's features get it, to measure their length: (1, 3, height, width)."""
        pixels = torch.from_numpy(np.array(self.prepare(Image.new("RGB", (64, 64), "grey")))).unsqueeze(0)
        return pixels if self.normalization is _ALREADY_NORMALIZED else pixels.permute(0, 3, 1, 2) / 255


def prepare_like(processor: Any) -> ImagePreparation:
    """Prepare images as a processor does: by our own code where both give the same pixels, else by the processor."""
    ours = _read_preprocessing(processor)
    if ours is not None and _gives_same_pixels(ours, processor):
        return ImagePreparation(ours, Normalization(ours.mean, ours.std), ours.describe())

    def process(image: Image.Image) -> Pixels:
        return _process(processor, image)

    return ImagePreparation(process, _ALREADY_NORMALIZED, type(processor).__name__)


def _read_preprocessing(processor: Any) -> Preprocessing | None:
    """Read resize, crop, mean and standard deviation from a processor; None for one that does something else."""
    # Each processor class has only the settings that it uses, so an attribute may be missing.
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
    mean = tuple(processor.image_mean) if processor.do_normalize else _ALREADY_NORMALIZED.mean
    std = tuple(processor.image_std) if processor.do_normalize else _ALREADY_NORMALIZED.std
    return Preprocessing(height, width, shortest, Image.Resampling(int(processor.resample)), mean, std)


def _gives_same_pixels(ours: Preprocessing, processor: Any) -> bool:
    """Compare the pixels of both on a generated image that is neither square nor flat."""
    across, down = np.meshgrid(np.arange(601), np.arange(427))
    pixels = np.stack([across % 256, down % 256, (across * down) // 97 % 256], axis=2).astype(np.uint8)
    image = Image.fromarray(pixels)
    theirs = _process(processor, image)
    mine = (ours(image) / 255.0 - np.array(ours.mean)) / np.array(ours.std)
    return theirs.shape[1:] == mine.shape[:2] and bool(np.abs(theirs - mine.transpose(2, 0, 1)).mean() < 0.01)


def _process(processor: Any, image: Image.Image) -> Pixels:
    pixels: Pixels = processor(images=image, return_tensors="np")["pixel_values"][0]
    return pixels
