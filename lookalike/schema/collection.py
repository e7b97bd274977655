"""What a collection looks like: its columns and their limits, its layout number, and the encoder of its vectors."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from lookalike.schema.errors import BadRow, EncoderMismatch, StoreUnavailable
from lookalike.schema.product import ImageRow, Metadata

LAYOUT = 2
"""Increase it when the columns change. Each collection has its layout number in its properties."""

LAYOUTS = (1, LAYOUT)
"""The layouts that this version of lookalike reads and writes."""

_ADDED_COLUMNS = {2: ("image_etag",)}
"""The columns that each layout added. In collections of earlier layouts they read as ""."""

FINGERPRINT_PROPERTY = "lookalike.fingerprint"
LAYOUT_PROPERTY = "lookalike.layout"
MADE_PROPERTY = "lookalike.made"
LEFT_PROPERTY = "lookalike.left"
EF_PROPERTY = "lookalike.ef"

# A 2.3 server counts bytes, Milvus Lite counts characters; a limit in bytes satisfies both.
MAX_BYTES = {
    "image_id": 64,
    "product_id": 1024,
    "image": 8192,
    "source": 8192,
    "image_hash": 64,
    "metadata_hash": 64,
    "image_etag": 1024,
}
MAX_METADATA_BYTES = 65_000

COLUMNS = tuple(field.name for field in fields(ImageRow))

MAX_MESSAGE_BYTES = 16 * 2**20
MAX_MESSAGE_ROWS = 1_000

_NOT_STORABLE = "an image of this product cannot be stored; send another one"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What identifies an encoder: two vectors can be compared only if all fields but `encoder` are equal.

    `encoder` is the name that loads it; `weights` is a hash of the parameters, wherever they were loaded from.
    """

    encoder: str
    weights: str
    dim: int
    pooling: str
    preprocessing: str

    @classmethod
    def from_json(cls, text: str) -> "Fingerprint":
        """Read the text that `to_json` returned."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Return the fingerprint as one line, which is stored with the collection."""
        return json.dumps(asdict(self))

    def list_differences(self, other: "Fingerprint") -> list[str]:
        """List the fields that make the vectors of two encoders incomparable; empty if they can be compared."""
        names = [field.name for field in fields(self) if field.name != "encoder"]
        return [
            f"{name} {getattr(self, name)} / {getattr(other, name)}"
            for name in names
            if getattr(self, name) != getattr(other, name)
        ]


def read_fingerprint(collection: str, properties: Mapping[str, str]) -> Fingerprint:
    """Read the fingerprint from a collection's properties. Raises StoreUnavailable when it is damaged."""
    try:
        return Fingerprint.from_json(properties[FINGERPRINT_PROPERTY])
    except (KeyError, ValueError, TypeError) as error:
        raise StoreUnavailable(
            f"what Milvus stores about the encoder of {collection!r} is damaged; restore Milvus from a backup, or fill "
            "another collection with --collection NEW_NAME"
        ) from error


def require_same_encoder(collection: str, stored: Fingerprint, requested: Fingerprint) -> None:
    """Raise EncoderMismatch unless the vectors of both encoders can be compared."""
    differences = stored.list_differences(requested)
    if differences:
        raise EncoderMismatch(
            f"the collection {collection!r} was filled by {stored.encoder!r}, and {requested.encoder!r} is another "
            f"encoder ({'; '.join(differences)}). Use --encoder {stored.encoder}, move the collection to the other one "
            f"with lookalike reindex --encoder {requested.encoder}, or fill another with --collection NEW_NAME"
        )


def missing_columns(layout: int) -> frozenset[str]:
    """Return the columns that a collection of this layout lacks."""
    return frozenset(name for added_in, names in _ADDED_COLUMNS.items() if added_in > layout for name in names)


def describe_misfit(texts: Mapping[str, str], metadata: Metadata) -> str | None:
    """Return why columns cannot be stored: too long, or not UTF-8 (some file names); None if they can."""
    for name, value in texts.items():
        size = _utf8_bytes(value)
        if size is None:
            return f"{name} {value!a} is not valid UTF-8; rename it"
        if size > MAX_BYTES[name]:
            return f"{name} has {size} bytes; {MAX_BYTES[name]} is the limit"
    if not _is_json(metadata):
        return "the metadata has a number that Milvus cannot store: NaN, infinity, or more than 64 bits"
    size = _utf8_bytes(json.dumps(metadata, ensure_ascii=False))
    if size is None:
        return "the metadata is not valid UTF-8"
    return f"the metadata has {size} bytes; {MAX_METADATA_BYTES} is the limit" if size > MAX_METADATA_BYTES else None


def check_row(row: ImageRow, dim: int) -> int:
    """Return about how many bytes a row takes in a message. Raises BadRow if Milvus would refuse or damage it.

    Every vector is checked: a 2.3 server aborts on vectors of different lengths, and Milvus Lite stores NaN.
    """
    vector = row.embedding
    if vector.shape != (dim,) or vector.dtype != np.float32:
        raise BadRow(
            f"{row.image}: the vector is {vector.dtype} of shape {vector.shape}, not float32 of shape ({dim},)",
            public=_NOT_STORABLE,
        )
    if not np.isfinite(vector).all():
        raise BadRow(f"{row.image}: the vector has NaN or infinity", public=_NOT_STORABLE)
    texts = {name: getattr(row, name) for name in MAX_BYTES}
    problem = describe_misfit(texts, row.metadata)
    if problem:
        raise BadRow(f"{row.image!a}: {problem}", public=_NOT_STORABLE)
    return vector.nbytes + sum(map(len, texts.values())) * 4 + len(json.dumps(row.metadata)) + 256


def _utf8_bytes(text: str) -> int | None:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None


def _is_json(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_json, value.values()))
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def split_into_messages(
    rows: Iterable[ImageRow], sizes: Sequence[int], columns: Sequence[str] = COLUMNS
) -> Iterator[list[dict[str, Any]]]:
    """Split rows, whose `sizes` are in bytes, into messages far below a server's limit of 64 MB."""
    message: list[dict[str, Any]] = []
    message_bytes = 0
    for row, size in zip(rows, sizes, strict=True):
        if message and (message_bytes + size > MAX_MESSAGE_BYTES or len(message) == MAX_MESSAGE_ROWS):
            yield message
            message, message_bytes = [], 0
        message.append({name: getattr(row, name) for name in columns})
        message_bytes += size
    if message:
        yield message
