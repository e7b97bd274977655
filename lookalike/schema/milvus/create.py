"""Creating a collection: first a version with its columns and indexes, then the alias that users see.

A version is named `products__v3_<8 hex>`; the alias `products` points to the live one.

Each caller creates a version under a unique name, then the alias. When two callers create the same alias at once, one
succeeds and the other drops its own version. No call drops a version that another one created.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from lookalike.schema.collection import (
    FINGERPRINT_PROPERTY,
    LAYOUT,
    LAYOUT_PROPERTY,
    MADE_PROPERTY,
    MAX_BYTES,
    Fingerprint,
)
from lookalike.schema.errors import StoreUnavailable
from lookalike.schema.filters.expression import quote_literal
from lookalike.schema.milvus.connection import Connection
from lookalike.schema.milvus.driver import DataType, MilvusClient
from lookalike.schema.settings import is_lite

# The type that a declared column is indexed as; lists cannot be indexed.
JSON_CAST = {"text": "varchar", "int": "double", "float": "double", "bool": "bool"}

# The first without any index, the second without the index of the vectors.
_NO_INDEX_MESSAGES = ("index not found", "no vector index")


def create_collection(connection: Connection, alias: str, fingerprint: Fingerprint) -> None:
    """Create the first version of a collection, unless another caller has created it meanwhile."""
    version = version_name(alias, 1)
    try:
        create_version(connection, version, fingerprint)
        connection.call("create_alias", version, alias)
    except StoreUnavailable:
        connection.call("drop_collection", version)
        if not connection.call("has_collection", alias):
            raise


def replace_empty_version(connection: Connection, alias: str, empty: str, fingerprint: Fingerprint) -> None:
    """Give a collection without rows to another encoder: create the next version, move the alias, drop the empty one.

    Does nothing when the alias has moved meanwhile. A version that has got rows meanwhile stays.
    """
    version = version_name(alias, max(list_versions(connection, alias).values()) + 1)
    create_version(connection, version, fingerprint)
    if connection.call("describe_collection", alias)["collection_name"] != empty:
        connection.call("drop_collection", version)
        return
    connection.call("alter_alias", version, alias)
    if not connection.call("query", empty, output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]:
        connection.call("drop_collection", empty)


def list_versions(connection: Connection, alias: str) -> dict[str, int]:
    """Return the versions of a collection by name, with their numbers."""
    pattern = re.compile(re.escape(alias) + r"__v(\d+)_[0-9a-f]{8}")
    names = connection.call("list_collections")
    return {match[0]: int(match[1]) for name in names if (match := pattern.fullmatch(name))}


def version_name(alias: str, number: int) -> str:
    """Return a unique name for a version."""
    return f"{alias}__v{number}_{secrets.token_hex(4)}"


def list_collections(connection: Connection) -> list[str]:
    """Return the names of the collections that lookalike created."""
    versions = [name for name in connection.call("list_collections") if "__v" in name]
    return sorted({alias for version in versions for alias in connection.call("list_aliases", version)["aliases"]})


def create_version(connection: Connection, version: str, fingerprint: Fingerprint) -> None:
    """Create an empty version, indexed and loaded. Searches do not see it until the alias points to it."""
    create_columns(connection, version, fingerprint)
    create_index_and_load(connection, version)


def create_columns(connection: Connection, version: str, fingerprint: Fingerprint) -> None:
    """Create an empty version that can be written to, but not read yet. Raises DiskFull before anything is written."""
    connection.require_free_disk()
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("image_id", DataType.VARCHAR, is_primary=True, max_length=MAX_BYTES["image_id"])
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=fingerprint.dim)
    for name, length in MAX_BYTES.items():
        if name != "image_id":
            schema.add_field(name, DataType.VARCHAR, max_length=length)
    for name in ("image_size", "image_mtime"):
        schema.add_field(name, DataType.INT64)
    schema.add_field("metadata", DataType.JSON)
    # Milvus Lite drops descriptions and keeps properties.
    properties = {
        FINGERPRINT_PROPERTY: fingerprint.to_json(),
        LAYOUT_PROPERTY: str(LAYOUT),
        MADE_PROPERTY: datetime.now(UTC).isoformat(timespec="seconds"),
    }
    connection.call("create_collection", version, schema=schema, properties=properties)


def create_index_and_load(connection: Connection, version: str) -> None:
    """Load a version, so that it can be read. A server builds the graph as rows arrive.

    A 2.3 server creates no index on a loaded collection, so the load comes last. Milvus Lite needs no index to compare
    every row: FLAT would be a second copy of all vectors, on disk and in memory. sync=False saves half a second, after
    which pymilvus would first check whether the index of no rows is built.
    """
    if not is_lite(connection.uri):
        _index_product_ids(connection, version)
        # The last one, because a version cannot be loaded without it: see load_version.
        connection.call("create_index", version, _vector_index(), sync=False)
    connection.call("load_collection", version)


def load_version(connection: Connection, version: str) -> None:
    """Load a version. One that was left without its index, by a process that was killed, is indexed first."""
    try:
        connection.call("load_collection", version)
    except StoreUnavailable as error:
        if not any(message in str(error) for message in _NO_INDEX_MESSAGES):
            raise
        create_index_and_load(connection, version)


def index_metadata(connection: Connection, version: str, column: str, kind: str) -> str | None:
    """Index a metadata column by its path in the JSON; return None, or why Milvus refused.

    Needs Milvus 2.5. Filters on a column without an index work too, but are slower.
    """
    index = MilvusClient.prepare_index_params()
    index.add_index(
        "metadata",
        index_name=f"metadata_{hashlib.blake2b(column.encode(), digest_size=8).hexdigest()}",
        index_type="INVERTED",
        params={"json_path": f"metadata[{quote_literal(column)}]", "json_cast_type": JSON_CAST[kind]},
    )
    try:
        connection.call("create_index", version, index)
    except StoreUnavailable as error:
        if "refused" not in str(error):
            raise
        return str(error)
    return None


def _vector_index() -> Any:
    index = MilvusClient.prepare_index_params()
    index.add_index("embedding", index_type="HNSW", metric_type="COSINE", params={"M": 24, "efConstruction": 200})
    return index


def _index_product_ids(connection: Connection, version: str) -> None:
    """Index product_id by the type that this Milvus has: INVERTED since 2.4, Trie before."""
    for index_type in ("INVERTED", "Trie"):
        index = MilvusClient.prepare_index_params()
        index.add_index("product_id", index_type=index_type)
        try:
            connection.call("create_index", version, index, sync=False)
            return
        except StoreUnavailable as error:
            if "index type" not in str(error):
                raise


def describe_missing_collection(name: str, uri: str, others: Sequence[str]) -> str:
    """Return the message that there is no such collection, and which ones there are."""
    existing = f"; there is {', '.join(others)} (--collection)" if others else ""
    return f"no collection {name!r} at {uri}{existing}. Fill one first: lookalike ingest SOURCE --collection {name}"
