"""The data types of the catalogue: an image of a product, its row in the collection, and a hit of a search."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
"""One embedding: shape (dim,), unit length."""

Vectors = npt.NDArray[np.float32]
"""Embeddings: shape (n, dim), each of unit length."""

Metadata = Mapping[str, Any]
"""The columns of a product other than its id and its image; the values are JSON values."""


@dataclass(frozen=True, slots=True)
class ProductImage:
    """One image of one product, as a source describes it; `image` is the path or the URI of its bytes.

    `location` is where a manifest names it, such as "line 7".
    """

    image_id: str
    source: str
    product_id: str
    image: str
    metadata: Metadata
    location: str = field(default="", compare=False, repr=False)

    @classmethod
    def named(cls, source: str, product_id: str, reference: str, image: str, metadata: Metadata) -> "ProductImage":
        """Compute the image_id from source, product_id and `reference`, the image's name inside its source.

        The same three always give the same image_id, of 32 hexadecimal digits.
        """
        name = json.dumps([source, product_id, reference])
        return cls(_digest(name.encode()), source, product_id, image, metadata)


@dataclass(frozen=True, slots=True)
class FileState:
    """What shows that an image's file has changed: a hash of its bytes, its size, its mtime in nanoseconds.

    `etag` is the web server's ETag, "" if there is none.
    """

    hash: str
    size: int
    mtime: int
    etag: str = ""

    @classmethod
    def of(cls, content: bytes, mtime: int, etag: str = "") -> "FileState":
        """Describe a file by its bytes and the time of its last change."""
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
        """Build a row from what the source, the file and the encoder say about an image."""
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
    """An image of a hit: its image_id, its cosine with the query (-1 to 1), and the path or URI of its bytes."""

    image_id: str
    score: float
    image: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One product of a search result: the cosine of its best image with the query (-1 to 1), and that image.

    `images` has the best images of the product, when the query requests more than one.
    """

    product_id: str
    score: float
    image_id: str
    image: str
    metadata: Metadata
    images: tuple[HitImage, ...] = ()


def metadata_hash(metadata: Metadata) -> str:
    """Hash metadata. The order of its columns does not matter."""
    return _digest(json.dumps(metadata, sort_keys=True, ensure_ascii=False).encode(errors="surrogatepass"))


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
