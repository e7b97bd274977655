"""Which files are images, and how large they may be. Nothing heavy is imported here: command lines use it."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif"})

MAX_BYTES = 256 * 2**20
"""Larger files are not read."""

MAX_PIXELS = 64_000_000
"""The default limit of width times height: a few kilobytes can unpack to an image of any size."""

PIXEL_CEILING = 178_956_970
"""The highest limit that can be set: Pillow refuses larger images (twice its MAX_IMAGE_PIXELS)."""
