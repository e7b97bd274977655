"""A collection of product images in Milvus: what is written, read and searched.

Milvus Lite (embedded, a path ending in .db) and a Milvus server (http://…) answer to the same Store. Where they
differ, or do harm, the reason stands beside the line that meets it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType

from lookalike.schema.collection import (
    COLUMNS,
    EF_PROPERTY,
    FINGERPRINT_PROPERTY,
    LAYOUT,
    LAYOUT_PROPERTY,
    LAYOUTS,
    MAX_MESSAGE_BYTES,
    MAX_MESSAGE_ROWS,
    Fingerprint,
    check_row,
    missing_columns,
    require_same_encoder,
    split_into_messages,
)
from lookalike.schema.errors import BadSettings, ResponseTooLarge, StoreUnavailable
from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.connection import DEFAULT_RETRY, Connection, RetryPolicy
from lookalike.schema.milvus.create import (
    JSON_CAST,
    create_collection,
    describe_missing_collection,
    index_metadata,
    list_collections,
)
from lookalike.schema.milvus.driver import LoadState
from lookalike.schema.milvus.index_status import IndexStatus
from lookalike.schema.milvus.pagination import fetch_by_key, fetch_by_range
from lookalike.schema.milvus.reader import Consistency, Row, ServerReader
from lookalike.schema.product import ImageRow, Vector
from lookalike.schema.settings import check_collection, check_uri, is_lite

SERVER_WINDOW = 16_384
SERVER_EF = 1_024
_SERVER_LANES = 4
_FLUSHED_ROWS = 1_000
LITE_WINDOW = 262_144


class Store:
    """An open collection: upsert, delete, search, query. Safe to use from several threads.

    Open an existing one with `Store.open` or `Store.find`, or make it with `Store.create`; close it when done, or use
    `with`.
    """

    def __init__(
        self,
        wire: Connection,
        name: str,
        version: str,
        fingerprint: Fingerprint,
        ef: int = SERVER_EF,
        layout: int = LAYOUT,
    ) -> None:
        self.name = name
        self.version = version
        """What the name meant when it was opened: a store stays with it when the name moves on to another version."""
        self.fingerprint = fingerprint
        self.uri = wire.uri
        self.exact = is_lite(wire.uri)
        """Searches compare every row (Milvus Lite) instead of following a graph (HNSW on a server)."""
        self.window = LITE_WINDOW if self.exact else SERVER_WINDOW
        """The most rows that one search or query returns."""
        self.lanes = 1 if self.exact else _SERVER_LANES
        """How many upserts are worth while at once: a server takes a third more rows by four, Milvus Lite one."""
        self.ef = ef
        """How wide a server's graph is searched without a filter; with one, as wide as if nothing had been tuned."""
        self._missing = missing_columns(layout)
        self._columns = [name for name in COLUMNS if name not in self._missing]
        self._wire = wire
        self._reads = _reads(wire, version, lite=self.exact)
        self._graph = IndexStatus(wire, version)

    @classmethod
    def open(
        cls, uri: str, *, token: str = "", collection: str = "products", patience: RetryPolicy = DEFAULT_RETRY
    ) -> "Store":
        """Open a collection that exists. Raises BadSettings when there is none, StoreUnavailable without Milvus."""
        name = check_collection(collection)
        if is_lite(check_uri(uri)) and not Path(uri).exists():
            raise BadSettings(describe_missing_collection(name, uri, []))
        with _closed_on_error(Connection.connect(uri, token, patience)) as wire:
            if not wire.call("has_collection", name):
                raise BadSettings(describe_missing_collection(name, uri, list_collections(wire)))
            return cls._opened(wire, name)

    @classmethod
    def find(cls, uri: str, *, token: str = "", collection: str = "products") -> "Store | None":
        """Open a collection if there is one. Raises StoreUnavailable without Milvus."""
        name = check_collection(collection)
        if is_lite(check_uri(uri)) and not Path(uri).exists():
            return None
        with _closed_on_error(Connection.connect(uri, token)) as wire:
            if wire.call("has_collection", name):
                return cls._opened(wire, name)
        wire.close()
        return None

    @classmethod
    def open_version(cls, uri: str, version: str, *, token: str = "") -> "Store":
        """Open a version of a collection by the name that it was made with."""
        with _closed_on_error(Connection.connect(uri, token)) as wire:
            return cls._opened(wire, version)

    @classmethod
    def create(cls, uri: str, fingerprint: Fingerprint, *, token: str = "", collection: str = "products") -> "Store":
        """Open a collection for an encoder, making it first when there is none.

        Raises EncoderMismatch when it holds another encoder's vectors.
        """
        name = check_collection(collection)
        with _closed_on_error(Connection.connect(check_uri(uri), token)) as wire:
            with wire.writing:
                if not wire.call("has_collection", name):
                    create_collection(wire, name, fingerprint)
            store = cls._opened(wire, name)
            require_same_encoder(name, store.fingerprint, fingerprint)
            return store

    @classmethod
    def _opened(cls, wire: Connection, name: str) -> "Store":
        described = wire.call("describe_collection", name)
        properties = described.get("properties", {})
        layout = properties.get(LAYOUT_PROPERTY)
        if layout not in map(str, LAYOUTS):
            raise BadSettings(
                f"the collection {name!r} at {wire.uri} was not made by this version of lookalike "
                f"(layout {layout}, not {LAYOUT}); name another one with --collection"
            )
        version = described["collection_name"]
        # Milvus Lite forgets with each process what was loaded.
        if wire.call("get_load_state", version)["state"] != LoadState.Loaded:
            wire.call("load_collection", version)
        ef = int(properties.get(EF_PROPERTY, SERVER_EF))
        fingerprint = Fingerprint.from_json(properties[FINGERPRINT_PROPERTY])
        return cls(wire, name, version, fingerprint, ef, int(layout))

    def keeps(self, column: str) -> bool:
        """Tell whether rows have a column; those of an earlier layout lack some."""
        return column in self._columns

    def is_live(self) -> bool:
        """Tell whether the name still means the version that it meant when it was opened."""
        live: bool = self._wire.call("describe_collection", self.name)["collection_name"] == self.version
        return live

    def require_live(self) -> None:
        """Raise StoreUnavailable when the name has come to mean another version, without what was written here."""
        if not self.is_live():
            raise StoreUnavailable(
                f"{self.name!r} was moved to another version while {self.version} was written to; run the same command "
                "again, and it brings to the new one what is missing there"
            )

    def index(self, columns: Mapping[str, str]) -> dict[str, str | None]:
        """Index metadata columns of declared types (text, int, float, bool) where this Milvus can.

        For each says None when it is indexed, else why it is not.
        """
        chosen = {name: kind for name, kind in columns.items() if kind in JSON_CAST}
        with self._wire.writing:
            return {name: index_metadata(self._wire, self.version, name, kind) for name, kind in chosen.items()}

    def upsert(self, rows: Iterable[ImageRow]) -> int:
        """Write rows, replacing those with the same image_id; return how many were written.

        Of several rows with one key the last wins. All rows are checked before the first is sent (BadRow).
        """
        latest = {row.image_id: row for row in rows}
        sizes = [check_row(row, self.fingerprint.dim) for row in latest.values()]
        for message in split_into_messages(latest.values(), sizes, self._columns):
            with self._wire.writing:
                self._wire.check_room()
                self._wire.call("upsert", self.version, data=message)
        return len(latest)

    def delete(self, image_ids: Sequence[str]) -> None:
        """Remove rows by key; keys that are not there do no harm."""
        for start in range(0, len(image_ids), MAX_MESSAGE_ROWS):
            chosen = column_in("image_id", image_ids[start : start + MAX_MESSAGE_ROWS])
            with self._wire.writing:
                self._wire.check_room()
                self._wire.call("delete", self.version, filter=chosen)

    def flush(self) -> None:
        """Move what was written into its final form: Milvus Lite searches it some thirty times faster."""
        with self._wire.writing:
            self._wire.check_room()
            self._wire.call("flush", self.version)

    def settle(self, written: int) -> None:
        """Flush after a run that has written so many rows, where it pays.

        A server's log is safe without it, and small flushes leave it small segments: it gets one for a thousand rows.
        """
        if written and (self.exact or written >= _FLUSHED_ROWS):
            self.flush()

    def search(self, vector: Vector, limit: int, *, where: str = "", fields: Sequence[str] = ()) -> list[Row]:
        """Return the rows nearest to `vector` (shape (dim,)), best first, each with its cosine as `score`.

        At most `window` rows; on a server an approximation (HNSW), on Milvus Lite exact.
        """
        return self.search_many([vector], limit, where=where, fields=fields)[0]

    def search_many(
        self, vectors: Sequence[Vector], limit: int, *, where: str = "", fields: Sequence[str] = ()
    ) -> list[list[Row]]:
        """Search for several vectors in one call, an answer for each: per vector a fraction of the time."""
        try:
            return self._searched(vectors, limit, where, fields)
        except ResponseTooLarge:
            found = self._searched(vectors, limit, where, ())
        wanted = sorted({hit["image_id"] for answer in found for hit in answer})
        columns = {row["image_id"]: row for row in self.get(wanted, fields)}
        # A row that was deleted in between is none any more.
        return [
            [{**columns[hit["image_id"]], **hit} for hit in answer if hit["image_id"] in columns] for answer in found
        ]

    def _searched(self, vectors: Sequence[Vector], limit: int, where: str, fields: Sequence[str]) -> list[list[Row]]:
        ef = max(SERVER_EF if where else self.ef, min(limit, self.window))
        return self._reads.search(vectors, min(limit, self.window), where, fields, None if self.exact else ef)

    def keep_ef(self, ef: int) -> None:
        """Search so wide from now on, also wherever this version is opened later."""
        self._wire.call("alter_collection_properties", self.version, {EF_PROPERTY: str(ef)})
        self.ef = ef

    def indexing(self) -> bool:
        """Tell whether a server still builds its graph: until then it searches another, which filters thin out."""
        return not self.exact and self._graph.building()

    def count(self, where: str = "", *, consistency: Consistency = "Strong") -> int:
        """Count the rows that match, all of them without `where`."""
        return self._reads.count(where, consistency)

    def fetch(
        self, *, where: str, fields: Sequence[str], limit: int, consistency: Consistency = "Session"
    ) -> list[Row]:
        """Read up to `limit` of the rows that match, in no order."""
        there = [name for name in fields if name not in self._missing]
        rows = self._reads.fetch(where, there, min(limit, self.window), consistency)
        blank = dict.fromkeys(self._missing.intersection(fields), "")
        return [{**blank, **row} for row in rows] if blank else rows

    def get(
        self, image_ids: Sequence[str], fields: Sequence[str], *, consistency: Consistency = "Session"
    ) -> Iterator[Row]:
        """Read rows by key, in no order; keys that are not there are left out."""
        return fetch_by_key(partial(self._fetched, fields, consistency), image_ids)

    def rows(self, *, where: str = "", fields: Sequence[str], consistency: Consistency = "Strong") -> Iterator[Row]:
        """Read every row that matches, in no order, past the window of a single query.

        By ranges of keys: Milvus's own iterator can miss rows that were just written (seen on 2.3).
        """
        # Hashes fall evenly enough for a page never to be full by chance.
        most = 0.85 * self.window
        if "embedding" in fields:
            most = min(most, MAX_MESSAGE_BYTES / (4 * self.fingerprint.dim))
        pages = int(self.count(where, consistency=consistency) / most) + 1
        yield from fetch_by_range(partial(self._fetched, fields, consistency), where, self.window, pages)

    def _fetched(self, fields: Sequence[str], consistency: Consistency, where: str, limit: int) -> list[Row]:
        return self.fetch(where=where, fields=fields, limit=limit, consistency=consistency)

    def close(self) -> None:
        """Let go of Milvus."""
        self._wire.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def _reads(wire: Connection, version: str, *, lite: bool) -> ServerReader:
    if not lite:
        return ServerReader(wire, version)
    from lookalike.schema.milvus.lite.reader import LiteReader  # with it comes Milvus Lite

    return LiteReader(wire, version)


@contextmanager
def _closed_on_error(wire: Connection) -> Iterator[Connection]:
    """Milvus Lite belongs to one process: a store that could not be opened must not keep it from the next."""
    try:
        yield wire
    except BaseException:
        wire.close()
        raise
