"""A collection of product images in Milvus: open it, write it, and (store_reader.py) read and search it.

Milvus Lite (embedded, a path ending in .db) and a Milvus server (http://…) have the same Store. Where they differ or
have a defect, a comment at the line says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from lookalike.schema.collection import (
    COLUMNS,
    EF_PROPERTY,
    MAX_MESSAGE_ROWS,
    Fingerprint,
    check_row,
    require_same_encoder,
    split_into_messages,
)
from lookalike.schema.errors import BadSettings, StoreUnavailable
from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.connection import Connection, close_on_error
from lookalike.schema.milvus.create import (
    JSON_CAST,
    create_collection,
    describe_missing_collection,
    index_metadata,
    list_collections,
    load_version,
    replace_empty_version,
)
from lookalike.schema.milvus.driver import LoadState
from lookalike.schema.milvus.retry import DEFAULT_RETRY, RetryPolicy
from lookalike.schema.milvus.store_reader import StoreReader, VersionInfo, read_version_info
from lookalike.schema.product import ImageRow
from lookalike.schema.settings import check_collection, check_uri, is_lite

# A server stores a third more rows a second by four upserts at once; Milvus Lite stores no more.
_SERVER_PARALLEL_WRITES = 4

_MIN_ROWS_TO_FLUSH = 1_000


class Store(StoreReader):
    """An open collection: upsert, delete, search, query. Safe to use from several threads.

    Open an existing one with `Store.open` or `Store.find`, or create it with `Store.create`; close it when done, or
    use `with`.
    """

    def __init__(self, connection: Connection, name: str, info: VersionInfo) -> None:
        super().__init__(connection, info)
        self.name = name
        self.parallel_writes = choose_parallel_writes(connection.uri)
        """How many upserts at once are fastest."""
        self._columns = [column for column in COLUMNS if self.has_column(column)]

    @classmethod
    def open(
        cls, uri: str, *, token: str = "", collection: str = "products", retry: RetryPolicy = DEFAULT_RETRY
    ) -> "Store":
        """Open an existing collection. Raises BadSettings when there is none, StoreUnavailable without Milvus."""
        name = check_collection(collection)
        if is_lite(check_uri(uri)) and not Path(uri).exists():
            raise BadSettings(describe_missing_collection(name, uri, []))
        with close_on_error(Connection.connect(uri, token, retry)) as connection:
            if not connection.call("has_collection", name):
                raise BadSettings(describe_missing_collection(name, uri, list_collections(connection)))
            return cls._load(connection, name)

    @classmethod
    def find(cls, uri: str, *, token: str = "", collection: str = "products") -> "Store | None":
        """Open a collection if there is one. Raises StoreUnavailable without Milvus."""
        name = check_collection(collection)
        if is_lite(check_uri(uri)) and not Path(uri).exists():
            return None
        with close_on_error(Connection.connect(uri, token)) as connection:
            if connection.call("has_collection", name):
                return cls._load(connection, name)
        connection.close()
        return None

    @classmethod
    def open_version(cls, uri: str, version: str, *, token: str = "") -> "Store":
        """Open a version of a collection by its own name."""
        with close_on_error(Connection.connect(uri, token)) as connection:
            return cls._load(connection, version)

    @classmethod
    def create(cls, uri: str, fingerprint: Fingerprint, *, token: str = "", collection: str = "products") -> "Store":
        """Open a collection for an encoder; create it first when there is none. An empty one takes any encoder.

        Raises EncoderMismatch when it holds another encoder's vectors.
        """
        name = check_collection(collection)
        with close_on_error(Connection.connect(check_uri(uri), token)) as connection:
            with connection.write_lock:
                if not connection.call("has_collection", name):
                    create_collection(connection, name, fingerprint)
            store = cls._load(connection, name)
            if store.fingerprint.list_differences(fingerprint) and store.version != name and not store.count():
                with connection.write_lock:
                    replace_empty_version(connection, name, store.version, fingerprint)
                store = cls._load(connection, name)
            require_same_encoder(name, store.fingerprint, fingerprint)
            return store

    @classmethod
    def _load(cls, connection: Connection, name: str) -> "Store":
        info = read_version_info(connection, name)
        # A new process of Milvus Lite has no collection loaded.
        if connection.call("get_load_state", info.version)["state"] != LoadState.Loaded:
            load_version(connection, info.version)
        return cls(connection, name, info)

    def is_live(self) -> bool:
        """Return whether the alias still points to the version that it pointed to when the store was opened."""
        live: bool = self.connection.call("describe_collection", self.name)["collection_name"] == self.version
        return live

    def require_live(self) -> None:
        """Raise StoreUnavailable when the alias has moved to another version, which lacks what was written here."""
        if not self.is_live():
            raise StoreUnavailable(
                f"{self.name!r} was moved to another version while {self.version} was written to; run the same command "
                "again to write to the new version what it lacks"
            )

    def index(self, columns: Mapping[str, str]) -> dict[str, str | None]:
        """Index metadata columns of declared types (text, int, float, bool) where this Milvus can.

        The result has None for each column that is indexed, and the reason for each that is not.
        """
        indexable = {name: kind for name, kind in columns.items() if kind in JSON_CAST}
        with self.connection.write_lock:
            return {name: index_metadata(self.connection, self.version, name, kind) for name, kind in indexable.items()}

    def set_search_ef(self, ef: int) -> None:
        """Set `ef`, and store it with this version: every store that is opened later uses it too."""
        self.set_property(EF_PROPERTY, str(ef))
        self.ef = ef

    def set_property(self, name: str, value: str) -> None:
        """Store a property with this version."""
        with self.connection.write_lock:
            self.connection.call("alter_collection_properties", self.version, {name: value})

    def upsert(self, rows: Iterable[ImageRow]) -> int:
        """Write rows, replacing those with the same image_id; return how many were written.

        Of several rows with one key the last wins. All rows are checked before the first is sent (BadRow).
        """
        latest = {row.image_id: row for row in rows}
        sizes = [check_row(row, self.fingerprint.dim) for row in latest.values()]
        for message in split_into_messages(latest.values(), sizes, self._columns):
            with self.connection.write_lock:
                self.connection.require_free_disk()
                self.connection.call("upsert", self.version, data=message)
        return len(latest)

    def delete(self, image_ids: Sequence[str]) -> None:
        """Delete rows by key; keys without a row are ignored."""
        for start in range(0, len(image_ids), MAX_MESSAGE_ROWS):
            where = column_in("image_id", image_ids[start : start + MAX_MESSAGE_ROWS])
            with self.connection.write_lock:
                self.connection.require_free_disk()
                self.connection.call("delete", self.version, filter=where)

    def flush(self) -> None:
        """Move what was written from the log into segments: Milvus Lite searches those some thirty times faster."""
        with self.connection.write_lock:
            self.connection.require_free_disk()
            self.connection.call("flush", self.version)

    def flush_after(self, rows: int) -> None:
        """Flush after a run that has written so many rows, if that makes searches faster.

        A server stores rows safely without a flush, and each flush makes a segment, so it needs 1,000 rows at least.
        """
        if rows and (self._is_lite or rows >= _MIN_ROWS_TO_FLUSH):
            self.flush()

    def close(self) -> None:
        """Close the connection to Milvus."""
        self.connection.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def choose_parallel_writes(uri: str) -> int:
    """Return how many upserts at once are fastest."""
    return 1 if is_lite(uri) else _SERVER_PARALLEL_WRITES
