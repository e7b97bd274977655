"""From RGB images to the pixels that a model was trained on: resize and crop in one step.

A model's own processor resizes the whole image and then crops its middle. Here only the middle is resized, to the same
pixels. So a 20,000×1 image never becomes one of 4,480,000×224 on the way.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[Any]
"""One prepared image, uint8 of shape (height, width, 3), or a batch of them, (n, height, width, 3)."""

Prepare = Callable[[Image.Image], Pixels]

Triple = tuple[float, float, float]
"""One value for each of red, green and blue."""


class Normalization(NamedTuple):
    """What a model expects instead of a channel's value, 0 to 1: (value - mean) / std."""

    mean: Triple
    std: Triple


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Resize to `shortest` (keeping the aspect) or, without it, to `height`×`width`; crop the middle; normalise.

    The pixels stay uint8: the encoder multiplies them by 1/255, subtracts `mean` and divides by `std` on the device.
    """

    height: int
    width: int
    shortest: int | None
    resample: Image.Resampling
    mean: Triple
    std: Triple

    def __call__(self, image: Image.Image) -> Pixels:
        """Prepare one RGB image: uint8, shape (height, width, 3)."""
        box = self._crop_box(self.shortest, *image.size) if self.shortest else None
        return np.asarray(image.resize((self.width, self.height), self.resample, box=box))

    @property
    def edge(self) -> int:
        """To how many pixels the shorter edge of an image is scaled, at most."""
        return self.shortest or max(self.height, self.width)

    def to_json(self) -> str:
        """Return the steps as one line, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Preprocessing":
        """Read the text that `to_json` returned."""
        values = json.loads(text)
        mean, std = tuple(values.pop("mean")), tuple(values.pop("std"))
        return cls(**{**values, "resample": Image.Resampling(values["resample"])}, mean=mean, std=std)

    def describe(self) -> str:
        """Describe all steps on one line, for the fingerprint."""
        size = f"shortest {self.shortest}, crop" if self.shortest else "resize"
        return (
            f"{size} {self.height}x{self.width} {self.resample.name.lower()}, "
            f"mean {_format(self.mean)}, std {_format(self.std)}"
        )

    def _crop_box(self, shortest: int, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the part of an image that is left after resizing it to `shortest` and cropping its middle."""
        # Processors round the longer side down, and the crop's corner too.
        scaled_width = shortest if width <= height else int(shortest * width / height)
        scaled_height = shortest if height <= width else int(shortest * height / width)
        left, top = (scaled_width - self.width) // 2, (scaled_height - self.height) // 2
        across, down = width / scaled_width, height / scaled_height
        # Rounding may put an edge a billionth of a pixel outside the image, which Pillow refuses.
        right = min((left + self.width) * across, float(width))
        bottom = min((top + self.height) * down, float(height))
        return left * across, top * down, right, bottom


def _format(values: Triple) -> str:
    return "/".join(f"{value:.4g}" for value in values)
