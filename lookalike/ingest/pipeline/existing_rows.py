"""The rows that a collection has before a run: keys, hashes and stamps. Vectors are read only where they are reused."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lookalike.ingest.pipeline.diff import Change, ExistingImage, FileStamp
from lookalike.ingest.pipeline.new_collection import NewCollection
from lookalike.ingest.reports.report import ReadyRow
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import FileState, ImageRow, ProductImage

_FIELDS = ("source", "product_id", "image", "image_hash", "metadata_hash", "image_size", "image_mtime", "image_etag")


@dataclass(frozen=True, slots=True)
class StoredVector:
    """An image that need not be encoded: the row `key` was made from the same bytes."""

    image: ProductImage
    file: FileState
    change: Change
    key: str


class RowScope(NamedTuple):
    """The rows that a run compares with: those of a source, or of any (None), among those that match `where`."""

    source: str | None
    where: str = ""


class ExistingRows:
    """The rows of a collection without their vectors.

    `by_id` has the rows of the scope; of all others only the hash is kept, to find the vector of the same bytes.
    Memory grows with the number of rows, by some hundred bytes each.
    """

    def __init__(self, store: Store | NewCollection, scope: RowScope) -> None:
        self.by_id: dict[str, ExistingImage] = {}
        self._key_by_hash: dict[str, str] = {}
        self._store = store
        self._has_etags = store.has_column("image_etag")
        for row in store.rows(where=scope.where, fields=_FIELDS):
            self._key_by_hash[row["image_hash"]] = row["image_id"]
            if scope.source is None or row["source"] == scope.source:
                stamp = FileStamp(row["image_size"], row["image_mtime"])
                self.by_id[row["image_id"]] = ExistingImage(
                    row["image_hash"], row["metadata_hash"], stamp, row["image"], row["product_id"], row["image_etag"]
                )

    def as_stored(self, file: FileState) -> FileState:
        """Return what a row can hold of a file: collections of an earlier layout have no column for its ETag."""
        return file if self._has_etags else replace(file, etag="")

    def find_vector(self, image_hash: str) -> str | None:
        """Return the key of a row that has the vector of these bytes, or of an image that this run encodes."""
        return self._key_by_hash.get(image_hash)

    def claim(self, image_hash: str, image_id: str) -> str:
        """Return the key of the row that has, or will have, the vector of these bytes: the first one that claims it."""
        return self._key_by_hash.setdefault(image_hash, image_id)

    def build_rows(self, images: Sequence[StoredVector]) -> tuple[list[ReadyRow], list[StoredVector]]:
        """Make rows from images and the vectors that are stored; the second list is of those whose vector is gone.

        A row may have changed since it was listed, even by this run: the hash beside its vector shows that.
        """
        keys = sorted({item.key for item in images})
        vectors = {
            row["image_id"]: (row["image_hash"], np.asarray(row["embedding"], dtype=np.float32))
            for row in self._store.get(keys, ["image_hash", "embedding"])
        }
        rows, gone = [], []
        for item in images:
            image_hash, vector = vectors.get(item.key, ("", None))
            if vector is not None and image_hash == item.file.hash:
                rows.append(ReadyRow(item.change, ImageRow.of(item.image, item.file, vector)))
            else:
                gone.append(item)
        return rows, gone
