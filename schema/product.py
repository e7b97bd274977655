"""The nouns of the catalogue: a picture of a product, its row in the collection, and a hit."""

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
"""The columns of a product that are not its id or its picture; values as JSON knows them."""


@dataclass(frozen=True, slots=True)
class ProductImage:
    """One picture of one product, as a source names it.

    `reference` is the picture's name inside its source (for a folder the relative path): together with
    `source` and `product_id` it makes the key. `image` is where the bytes are.
    """

    source: str
    product_id: str
    reference: str
    image: str
    metadata: Metadata

    @property
    def image_id(self) -> str:
        """The key: 32 hexadecimal digits, the same for the same source, product and reference."""
        parts = json.dumps([self.source, self.product_id, self.reference])
        return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells that a picture's file has changed: a hash of its bytes, its size, its mtime in nanoseconds."""

    hash: str
    size: int
    mtime: int

    @classmethod
    def of(cls, content: bytes, mtime: int) -> "FileState":
        """Describe the bytes of a file that was last written at `mtime`."""
        return cls(hashlib.blake2b(content, digest_size=16).hexdigest(), len(content), mtime)


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
    metadata: Metadata

    @classmethod
    def of(cls, picture: ProductImage, file: FileState, embedding: Vector) -> "ImageRow":
        """Put together what the source, the file system and the encoder know of a picture."""
        return cls(
            image_id=picture.image_id,
            product_id=picture.product_id,
            embedding=embedding,
            image=picture.image,
            source=picture.source,
            image_hash=file.hash,
            metadata_hash=metadata_hash(picture.metadata),
            image_size=file.size,
            image_mtime=file.mtime,
            metadata=picture.metadata,
        )


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer: a product, the cosine of its best picture to the question (-1 to 1), and that picture."""

    product_id: str
    score: float
    image: str
    metadata: Metadata


def metadata_hash(metadata: Metadata) -> str:
    """Hash metadata so that the order of its columns does not matter."""
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
