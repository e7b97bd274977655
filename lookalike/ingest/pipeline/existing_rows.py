"""What the collection holds already, as far as a plan needs it: keys, hashes and stamps; vectors only when asked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lookalike.ingest.pipeline.diff import Change, ExistingImage, FileStamp
from lookalike.ingest.reports.report import ReadyRow
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import FileState, ImageRow, ProductImage

_FIELDS = ("source", "product_id", "image", "image_hash", "metadata_hash", "image_size", "image_mtime", "image_etag")


@dataclass(frozen=True, slots=True)
class StoredVector:
    """An image whose vector need not be computed: the row `key` was made from the same bytes."""

    image: ProductImage
    file: FileState
    change: Change
    key: str


class RowScope(NamedTuple):
    """Which rows a source answers for: all of that name, or of any (None); `where` leaves others out of sight."""

    source: str | None
    where: str = ""


class ExistingRows:
    """The rows of a collection without their vectors.

    `known` has those that are owned, by key; all others only count as places where the vector of an image can be found
    by the hash of its bytes. Memory grows with the number of rows, by some hundred bytes each.
    """

    def __init__(self, store: Store, owned: RowScope) -> None:
        self.known: dict[str, ExistingImage] = {}
        self._by_hash: dict[str, str] = {}
        self._store = store
        self._keeps_etags = store.has_column("image_etag")
        for row in store.rows(where=owned.where, fields=_FIELDS):
            self._by_hash[row["image_hash"]] = row["image_id"]
            if owned.source is None or row["source"] == owned.source:
                stamp = FileStamp(row["image_size"], row["image_mtime"])
                self.known[row["image_id"]] = ExistingImage(
                    row["image_hash"], row["metadata_hash"], stamp, row["image"], row["product_id"], row["image_etag"]
                )

    def storable(self, file: FileState) -> FileState:
        """What a row can hold of a file: collections of an earlier layout have no place for its ETag."""
        return file if self._keeps_etags else replace(file, etag="")

    def stored(self, image_hash: str) -> str | None:
        """The key of a row that has the vector of these bytes, if there is one."""
        return self._by_hash.get(image_hash)

    def claim(self, image_hash: str, image_id: str) -> str:
        """Say who has the vector of these bytes, or will have: the first who asks."""
        return self._by_hash.setdefault(image_hash, image_id)

    def ready(self, wanted: Sequence[StoredVector]) -> tuple[list[ReadyRow], list[StoredVector]]:
        """Make rows of images and the vectors that are stored; the second list is those whose vector is gone.

        A row may have changed since it was listed, even by this very run: the hash beside the vector tells.
        """
        keys = sorted({item.key for item in wanted})
        vectors = {
            row["image_id"]: (row["image_hash"], np.asarray(row["embedding"], dtype=np.float32))
            for row in self._store.get(keys, ["image_hash", "embedding"])
        }
        rows, gone = [], []
        for item in wanted:
            image_hash, vector = vectors.get(item.key, ("", None))
            if vector is not None and image_hash == item.file.hash:
                rows.append(ReadyRow(item.change, ImageRow.of(item.image, item.file, vector)))
            else:
                gone.append(item)
        return rows, gone
