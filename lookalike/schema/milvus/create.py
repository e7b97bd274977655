"""Making a collection: its columns, its indexes, and last the alias by which users know it.

A version is named `products__v3_<8 hex>`; the alias `products` says which one is live.

Every maker builds under a name of its own and only then asks for the alias: of two at once one gets it, the other
drops what it has made. Nothing is ever dropped that this call has not made.
"""

import hashlib
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

# What a declared column becomes in the index; lists have none.
JSON_CAST = {"text": "varchar", "int": "double", "float": "double", "bool": "bool"}


def create_collection(wire: Connection, alias: str, fingerprint: Fingerprint) -> None:
    """Make the first version of a collection, unless somebody else has made it meanwhile."""
    version = version_name(alias, 1)
    try:
        create_version(wire, version, fingerprint)
        wire.call("create_alias", version, alias)
    except StoreUnavailable:
        wire.call("drop_collection", version)
        if not wire.call("has_collection", alias):
            raise


def version_name(alias: str, number: int) -> str:
    """Name a version as no other is named."""
    return f"{alias}__v{number}_{secrets.token_hex(4)}"


def list_collections(wire: Connection) -> list[str]:
    """The names of the collections that were made here."""
    versions = [name for name in wire.call("list_collections") if "__v" in name]
    return sorted({alias for version in versions for alias in wire.call("list_aliases", version)["aliases"]})


def create_version(wire: Connection, version: str, fingerprint: Fingerprint) -> None:
    """Make an empty version, indexed and loaded, that nobody sees until the alias points to it."""
    create_columns(wire, version, fingerprint)
    create_index_and_load(wire, version)


def create_columns(wire: Connection, version: str, fingerprint: Fingerprint) -> None:
    """Make an empty version that can be written to, and not yet read."""
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
    wire.call("create_collection", version, schema=schema, properties=properties)


def create_index_and_load(wire: Connection, version: str) -> None:
    """Make it readable, in a server by a graph that is built as rows come.

    A 2.3 server takes no further index once the collection is loaded, so the load comes after both. Milvus Lite needs
    none to compare every row: its FLAT would be a second copy of all vectors, on the disk and in memory.
    Nothing waits for an index of no rows (sync=False): pymilvus would look for its end half a second later.
    """
    if not is_lite(wire.uri):
        wire.call("create_index", version, _vector_index(), sync=False)
        _index_product_ids(wire, version)
    wire.call("load_collection", version)


def index_metadata(wire: Connection, version: str, column: str, kind: str) -> str | None:
    """Index a metadata column by its path in the JSON; None when that is done, else why it could not be.

    Milvus can since 2.5. A column without an index is filtered all the same, only slower.
    """
    index = MilvusClient.prepare_index_params()
    index.add_index(
        "metadata",
        index_name=f"metadata_{hashlib.blake2b(column.encode(), digest_size=8).hexdigest()}",
        index_type="INVERTED",
        params={"json_path": f"metadata[{quote_literal(column)}]", "json_cast_type": JSON_CAST[kind]},
    )
    try:
        wire.call("create_index", version, index)
    except StoreUnavailable as error:
        if "refused" not in str(error):
            raise
        return str(error)
    return None


def _vector_index() -> Any:
    index = MilvusClient.prepare_index_params()
    index.add_index("embedding", index_type="HNSW", metric_type="COSINE", params={"M": 24, "efConstruction": 200})
    return index


def _index_product_ids(wire: Connection, version: str) -> None:
    """Index product_id by the kind this Milvus has: INVERTED since 2.4, Trie before."""
    for kind in ("INVERTED", "Trie"):
        index = MilvusClient.prepare_index_params()
        index.add_index("product_id", index_type=kind)
        try:
            wire.call("create_index", version, index, sync=False)
            return
        except StoreUnavailable as error:
            if "index type" not in str(error):
                raise


def describe_missing_collection(name: str, uri: str, others: Sequence[str]) -> str:
    """Say that there is none, and which ones there are."""
    there = f"; there is {', '.join(others)} (--collection)" if others else ""
    return f"no collection {name!r} at {uri}{there}. Fill one first: lookalike ingest SOURCE --collection {name}"
