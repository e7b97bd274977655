"""The images that `lookalike search` is called with: files, URLs, standard input."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from lookalike.encode.image_limits import MAX_BYTES
from lookalike.schema.errors import BadQuery
from lookalike.search.query import Part

STANDARD_INPUT = "-"


def read_images(images: Sequence[str], *, allow_private: bool) -> Iterator[Part]:
    """Read each image as a part of one query. Raises BadQuery, which names the image that cannot be read."""
    if images.count(STANDARD_INPUT) > 1:
        raise BadQuery("standard input holds one image: write - only once, and give the others as files")
    for image in images:
        name = "standard input" if image == STANDARD_INPUT else f"{image!a}"
        yield Part(image=_read_image(image, allow_private=allow_private), name=name)


def _read_image(image: str, *, allow_private: bool) -> bytes:
    if image == STANDARD_INPUT:
        return _read_limited(sys.stdin.buffer, "the image on standard input")
    if image.lower().startswith(("http://", "https://")):
        from lookalike.encode.fetch.query_image import fetch_query_image

        return fetch_query_image(image, allow_private=allow_private)
    try:
        with Path(image).open("rb") as file:
            return _read_limited(file, f"the image {image!r}")
    except FileNotFoundError as error:
        raise BadQuery(f"there is no file {image!r}; to search by a product id, write --product {image}") from error
    except OSError as error:
        raise BadQuery(f"the image {image!r} cannot be read: {error.strerror}") from error


def _read_limited(file: BinaryIO, name: str) -> bytes:
    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise BadQuery(f"{name} has more than {MAX_BYTES} bytes, the limit; make it smaller")
    return content
