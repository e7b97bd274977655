"""The reading half of a Store: search, fetch and count rows, on Milvus Lite and on a server alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from lookalike.schema.collection import (
    EF_PROPERTY,
    LAYOUT,
    LAYOUT_PROPERTY,
    LAYOUTS,
    MAX_MESSAGE_BYTES,
    Fingerprint,
    missing_columns,
    read_fingerprint,
)
from lookalike.schema.errors import BadSettings, ResponseTooLarge
from lookalike.schema.milvus.connection import Connection
from lookalike.schema.milvus.index_status import IndexStatus
from lookalike.schema.milvus.pagination import fetch_by_key, fetch_by_range
from lookalike.schema.milvus.reader import Consistency, Row, ServerReader
from lookalike.schema.product import Vector
from lookalike.schema.settings import is_lite

SERVER_WINDOW = 16_384
LITE_WINDOW = 262_144
SERVER_EF = 1_024

# The keys of a page are hashes: a page of this share of the window is practically never larger than the window.
_PAGE_FILL = 0.85


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """What Milvus stores about a version: its own name, its encoder, the `ef` of its searches, its layout."""

    version: str
    fingerprint: Fingerprint
    ef: int
    layout: int


def read_version_info(connection: Connection, name: str) -> VersionInfo:
    """Read what Milvus stores about a version, or about the version to which the alias `name` points.

    Raises BadSettings when the collection has no layout that this version of lookalike reads.
    """
    description = connection.call("describe_collection", name)
    properties = description.get("properties", {})
    layout = properties.get(LAYOUT_PROPERTY)
    if layout not in map(str, LAYOUTS):
        raise BadSettings(
            f"the collection {name!r} at {connection.uri} was not created by this version of lookalike "
            f"(layout {layout}, not {LAYOUT}); name another one with --collection"
        )
    return VersionInfo(
        description["collection_name"],
        read_fingerprint(name, properties),
        int(properties.get(EF_PROPERTY, SERVER_EF)),
        int(layout),
    )


class StoreReader:
    """Reads one version of a collection. Safe to use from several threads."""

    def __init__(self, connection: Connection, info: VersionInfo) -> None:
        self.connection = connection
        """For calls of Milvus that have no method here."""
        self.uri = connection.uri
        self.version = info.version
        """The version that is read and written, even after the alias has moved to another version."""
        self.fingerprint = info.fingerprint
        self.ef = info.ef
        """The width of a server's graph search without a filter. A search with a filter uses SERVER_EF."""
        self._is_lite = is_lite(connection.uri)
        self.window = LITE_WINDOW if self._is_lite else SERVER_WINDOW
        """The maximum number of rows that one search or query returns."""
        self._missing_columns = missing_columns(info.layout)
        self._reader = _choose_reader(connection, info.version)
        self._index_status = IndexStatus(connection, info.version)

    @property
    def encoder(self) -> str:
        """The name of the encoder whose vectors are in the collection."""
        return self.fingerprint.encoder

    @property
    def is_exact(self) -> bool:
        """Whether a search compares every row (Milvus Lite) instead of following a graph (HNSW on a server)."""
        return self._is_lite

    def read_property(self, name: str) -> str | None:
        """Return a property that is stored with this version."""
        value: str | None = self.connection.call("describe_collection", self.version).get("properties", {}).get(name)
        return value

    def has_column(self, column: str) -> bool:
        """Return whether the rows have a column; those of an earlier layout lack some."""
        return column not in self._missing_columns

    def is_indexing(self) -> bool:
        """Return whether a server is still building the graph. Until then a search with a filter may miss rows."""
        return not self._is_lite and self._index_status.is_building()

    def search(self, vector: Vector, limit: int, *, where: str = "", fields: Sequence[str] = ()) -> list[Row]:
        """Return the rows nearest to `vector` (shape (dim,)), best first, each with its cosine as `score`.

        At most `window` rows; approximate on a server (HNSW), exact on Milvus Lite.
        """
        return self.search_many([vector], limit, where=where, fields=fields)[0]

    def search_many(
        self, vectors: Sequence[Vector], limit: int, *, where: str = "", fields: Sequence[str] = ()
    ) -> list[list[Row]]:
        """Search for several vectors in one call, which is faster than one call per vector; return a list for each."""
        try:
            return self._search_once(vectors, limit, where, fields)
        except ResponseTooLarge:
            # Search for the keys alone, then read the columns in batches.
            results = self._search_once(vectors, limit, where, ())
        image_ids = sorted({hit["image_id"] for hits in results for hit in hits})
        rows = {row["image_id"]: row for row in self.get(image_ids, fields)}
        # A row may have been deleted between the two calls.
        return [[{**rows[hit["image_id"]], **hit} for hit in hits if hit["image_id"] in rows] for hits in results]

    def _search_once(self, vectors: Sequence[Vector], limit: int, where: str, fields: Sequence[str]) -> list[list[Row]]:
        limit = min(limit, self.window)
        ef = None if self._is_lite else max(SERVER_EF if where else self.ef, limit)
        return self._reader.search(vectors, limit, where, fields, ef)

    def count(self, where: str = "", *, consistency: Consistency = "Strong") -> int:
        """Count the rows that match, all of them without `where`."""
        return self._reader.count(where, consistency)

    def fetch(
        self, *, where: str, fields: Sequence[str], limit: int, consistency: Consistency = "Session"
    ) -> list[Row]:
        """Read up to `limit` of the rows that match, in no order."""
        stored = [name for name in fields if self.has_column(name)]
        rows = self._reader.fetch(where, stored, min(limit, self.window), consistency)
        blank = dict.fromkeys(self._missing_columns.intersection(fields), "")
        return [{**blank, **row} for row in rows] if blank else rows

    def get(
        self, image_ids: Sequence[str], fields: Sequence[str], *, consistency: Consistency = "Session"
    ) -> Iterator[Row]:
        """Read rows by key, in no order; keys without a row are left out."""
        return fetch_by_key(partial(self._fetch, fields, consistency), image_ids)

    def rows(self, *, where: str = "", fields: Sequence[str], consistency: Consistency = "Strong") -> Iterator[Row]:
        """Read every row that matches, in no order, however many they are.

        By ranges of keys: Milvus's own iterator can miss rows that were just written (seen on 2.3).
        """
        page_size = _PAGE_FILL * self.window
        if "embedding" in fields:
            page_size = min(page_size, MAX_MESSAGE_BYTES / (4 * self.fingerprint.dim))
        pages = int(self.count(where, consistency=consistency) / page_size) + 1
        yield from fetch_by_range(partial(self._fetch, fields, consistency), where, self.window, pages)

    def _fetch(self, fields: Sequence[str], consistency: Consistency, where: str, limit: int) -> list[Row]:
        return self.fetch(where=where, fields=fields, limit=limit, consistency=consistency)


def _choose_reader(connection: Connection, version: str) -> ServerReader:
    if not is_lite(connection.uri):
        return ServerReader(connection, version)
    from lookalike.schema.milvus.lite.reader import LiteReader  # imports Milvus Lite, which a server does not need

    return LiteReader(connection, version)
