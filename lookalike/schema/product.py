"""The nouns of the catalogue: an image of a product, its row in the collection, and a hit."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
"""One embedding: shape (dim,), unit length."""

Vectors = npt.NDArray[np.float32]
"""Embeddings: shape (n, dim), each of unit length."""

Metadata = Mapping[str, Any]
"""The columns of a product that are not its id or its image; values as JSON knows them."""


@dataclass(frozen=True, slots=True)
class ProductImage:
    """One image of one product, as a source names it; `image` is where the bytes are, a path or a URI."""

    image_id: str
    source: str
    product_id: str
    image: str
    metadata: Metadata

    @classmethod
    def named(cls, source: str, product_id: str, reference: str, image: str, metadata: Metadata) -> "ProductImage":
        """Make the key from source, product and `reference`, the image's name inside its source.

        The key is 32 hexadecimal digits, the same for the same three.
        """
        parts = json.dumps([source, product_id, reference])
        return cls(_digest(parts.encode()), source, product_id, image, metadata)


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells that an image's file has changed: a hash of its bytes, its size, its mtime in nanoseconds.

    `etag` is what a web server calls this version of it, "" where there is none.
    """

    hash: str
    size: int
    mtime: int
    etag: str = ""

    @classmethod
    def of(cls, content: bytes, mtime: int, etag: str = "") -> "FileState":
        """Describe the bytes of a file that was last written at `mtime`."""
        return cls(_digest(content), len(content), mtime, etag)


@dataclass(frozen=True, slots=True, eq=False)
class ImageRow:
    """One row of the collection; the fields are its columns."""

    image_id: str
    product_id: str
    embedding: Vector
    image: str
    source: str
    image_hash: str
    metadata_hash: str
    image_size: int
    image_mtime: int
    image_etag: str
    metadata: Metadata

    @classmethod
    def of(cls, image: ProductImage, file: FileState, embedding: Vector) -> "ImageRow":
        """Put together what the source, the file system and the encoder know of an image."""
        return cls(
            image_id=image.image_id,
            product_id=image.product_id,
            embedding=embedding,
            image=image.image,
            source=image.source,
            image_hash=file.hash,
            metadata_hash=metadata_hash(image.metadata),
            image_size=file.size,
            image_mtime=file.mtime,
            image_etag=file.etag,
            metadata=image.metadata,
        )


@dataclass(frozen=True, slots=True)
class HitImage:
    """An image of an answer: its key, the cosine to the question (-1 to 1), and where the bytes are."""

    image_id: str
    score: float
    image: str


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer: a product, the cosine of its best image to the question (-1 to 1), and that image.

    `images` are the best of the product, when more than that one was asked for.
    """

    product_id: str
    score: float
    image_id: str
    image: str
    metadata: Metadata
    images: tuple[HitImage, ...] = ()


def metadata_hash(metadata: Metadata) -> str:
    """Hash metadata so that the order of its columns does not matter."""
    return _digest(json.dumps(metadata, sort_keys=True, ensure_ascii=False).encode(errors="surrogatepass"))


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
