"""Small image files for catalogues that change."""

import os
from pathlib import Path

from PIL import Image

LONG_AGO = 10**18


def draw(path: Path, colour: int, *, at: int = LONG_AGO) -> Path:
    """Draw an image whose bytes depend on `colour`; its mtime is `at`, in nanoseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (20, 20), (colour % 256, 90, 30))
    image.putpixel((3, 3), (colour // 256, 0, colour % 7))
    image.save(path, "PNG")
    os.utime(path, ns=(at, at))
    return path
