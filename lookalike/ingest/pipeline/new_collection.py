"""A collection without rows: nothing is created in Milvus before the first row is ready to be written."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from lookalike.schema.collection import Fingerprint
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store, choose_parallel_writes
from lookalike.schema.product import ImageRow
from lookalike.schema.settings import CollectionAddress


class NewCollection:
    """A collection that does not exist, or has no rows yet: the first upsert creates it, or gives it its encoder.

    It has the methods of a Store that a run calls; until the first upsert they find and do nothing. A run that fails
    before leaves Milvus as it was, and no folder of Milvus Lite.
    """

    def __init__(self, address: CollectionAddress, encoder: str, fingerprint: Callable[[], Fingerprint]) -> None:
        self.parallel_writes = choose_parallel_writes(address.uri)
        self._address = address
        self._encoder = encoder
        self._fingerprint = fingerprint
        self._opening = threading.Lock()
        self._store: Store | None = None

    @property
    def encoder(self) -> str:
        """The name of the encoder that fills the collection."""
        return self._encoder if self._store is None else self._store.encoder

    def has_column(self, column: str) -> bool:
        """Return whether the rows will have a column: a new collection has them all."""
        return True

    def rows(self, *, where: str = "", fields: Sequence[str]) -> Iterator[Row]:
        """Read every row that matches."""
        return iter(()) if self._store is None else self._store.rows(where=where, fields=fields)

    def get(self, image_ids: Sequence[str], fields: Sequence[str]) -> Iterator[Row]:
        """Read rows by key."""
        return iter(()) if self._store is None else self._store.get(image_ids, fields)

    def upsert(self, rows: Iterable[ImageRow]) -> int:
        """Write rows; create the collection first. Raises EncoderMismatch when another run has filled it meanwhile."""
        return self._open().upsert(rows)

    def flush_after(self, rows: int) -> None:
        """Flush after a run that has written so many rows: see Store.flush_after."""
        if self._store is not None:
            self._store.flush_after(rows)

    def index(self, columns: Mapping[str, str]) -> dict[str, str | None]:
        """Index metadata columns: see Store.index."""
        return {} if self._store is None else self._store.index(columns)

    def require_live(self) -> None:
        """Raise StoreUnavailable when the alias has moved to another version: see Store.require_live."""
        if self._store is not None:
            self._store.require_live()

    def _open(self) -> Store:
        with self._opening:
            if self._store is None:
                address = self._address
                self._store = Store.create(
                    address.uri, self._fingerprint(), token=address.token, collection=address.collection
                )
            return self._store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._store is not None:
            self._store.close()
