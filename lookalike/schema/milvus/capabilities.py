"""What a Milvus is and can do: its version, the user's collection, and its features.

Features are tried on a scratch collection, not derived from the version.
"""

import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import grpc

from lookalike.schema.collection import FINGERPRINT_PROPERTY, Fingerprint
from lookalike.schema.errors import StoreUnavailable, StoreUnreachable
from lookalike.schema.milvus.connection import Connection
from lookalike.schema.milvus.driver import DataType, LoadState, MilvusClient, MilvusException
from lookalike.schema.milvus.retry import RetryPolicy
from lookalike.schema.settings import is_lite

_RETRY = RetryPolicy(call_timeout=10.0, give_up_after=5.0)
_SCRATCH_PREFIX = "lookalike_doctor_"
_SCRATCH_MAX_AGE = 600
"""Seconds after which a scratch collection is one that a killed probe could not drop."""

_NEAR_ROWS = 64
"""Rows of one group, all nearer than the only row of the other: more than Milvus Lite fetches for two groups."""

Trial = Callable[[Connection, str], bool]
"""Tries a feature on a collection; returns whether the result is right, or raises StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class FoundCollection:
    """A collection in Milvus. `fingerprint` is None when lookalike did not create it, `rows` when it is not loaded."""

    version: str
    fingerprint: Fingerprint | None
    rows: int | None


class CapabilityProbe:
    """Finds out in seconds what a Milvus is and can do, and leaves it unchanged. Close it when done, or use `with`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    def connect(cls, uri: str, token: str) -> "CapabilityProbe":
        """Connect to Milvus. Raises StoreUnreachable."""
        return cls(Connection.connect(uri, token, _RETRY))

    def server_version(self) -> str:
        """Return the version that Milvus reports."""
        return str(self._connection.call("get_server_version"))

    def collection(self, name: str) -> FoundCollection | None:
        """Describe a collection; None when there is none."""
        if not self._connection.call("has_collection", name):
            return None
        description = self._connection.call("describe_collection", name)
        version = description["collection_name"]
        fingerprint = description.get("properties", {}).get(FINGERPRINT_PROPERTY)
        if is_lite(self._connection.uri):
            # Loads it in this process only.
            self._connection.call("load_collection", version)
        is_loaded = self._connection.call("get_load_state", version)["state"] == LoadState.Loaded
        rows = self._connection.call("query", version, output_fields=["count(*)"])[0]["count(*)"] if is_loaded else None
        return FoundCollection(version, Fingerprint.from_json(fingerprint) if fingerprint else None, rows)

    def features(self) -> dict[str, bool]:
        """Try the features in which servers differ, on a scratch collection; return which of them work."""
        trials: dict[str, Trial] = {
            "aliases": _try_aliases,
            "group by": _try_group_by,
            "partial update": _try_partial_update,
            "bulk import": _try_bulk_import,
        }
        with _scratch_collection(self._connection) as name:
            return {feature: _works(trial, self._connection, name) for feature, trial in trials.items()}

    def close(self) -> None:
        """Close the connection to Milvus."""
        self._connection.close()

    def __enter__(self) -> "CapabilityProbe":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def lite_features() -> dict[str, bool]:
    """Try the same features of Milvus Lite in a temporary folder, away from the user's data."""
    with tempfile.TemporaryDirectory() as folder, CapabilityProbe.connect(str(Path(folder) / "probe.db"), "") as probe:
        return probe.features()


@contextmanager
def _scratch_collection(connection: Connection) -> Iterator[str]:
    """Create a small collection and drop it afterwards; also drop those that a killed process left behind."""
    name = f"{_SCRATCH_PREFIX}{int(time.time())}_{secrets.token_hex(4)}"
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=16)
    schema.add_field("kind", DataType.VARCHAR, max_length=16)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    index = MilvusClient.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    rows = [{"key": f"near{n}", "kind": "crowd", "vector": [1.0, 0.0]} for n in range(_NEAR_ROWS)]
    with connection.write_lock:
        _drop_old_scratch_collections(connection)
        try:
            connection.call("create_collection", name, schema=schema, index_params=index)
            connection.call("upsert", name, data=[*rows, {"key": "far", "kind": "single", "vector": [0.0, 1.0]}])
            yield name
        finally:
            connection.call("drop_collection", name)


def _drop_old_scratch_collections(connection: Connection) -> None:
    for name in connection.call("list_collections"):
        created = name.removeprefix(_SCRATCH_PREFIX).split("_")[0]
        if name.startswith(_SCRATCH_PREFIX) and created.isdigit() and int(created) < time.time() - _SCRATCH_MAX_AGE:
            connection.call("drop_collection", name)


def _works(trial: Trial, connection: Connection, name: str) -> bool:
    """Return whether a feature works; False when Milvus refuses it. Raises StoreUnreachable when Milvus is away."""
    try:
        return trial(connection, name)
    except StoreUnreachable:
        raise
    except StoreUnavailable:
        return False


def _try_aliases(connection: Connection, name: str) -> bool:
    alias = f"{name}_alias"
    connection.call("create_alias", name, alias)
    try:
        return bool(connection.call("describe_collection", alias)["collection_name"] == name)
    finally:
        connection.call("drop_alias", alias)


def _try_group_by(connection: Connection, name: str) -> bool:
    """Both groups have to be in the result: some servers ignore the option, Milvus Lite groups only what it fetched."""
    results = connection.call(
        "search",
        name,
        data=[[1.0, 0.0]],
        limit=2,
        group_by_field="kind",
        output_fields=["kind"],
        consistency_level="Strong",
    )
    return {hit["entity"]["kind"] for hit in results[0]} == {"crowd", "single"}


def _try_partial_update(connection: Connection, name: str) -> bool:
    connection.call("upsert", name, data=[{"key": "far", "kind": "other"}], partial_update=True)
    [row] = connection.call(
        "query", name, filter='key == "far"', output_fields=["kind", "vector"], consistency_level="Strong"
    )
    return row["kind"] == "other" and list(row["vector"]) == [0.0, 1.0]


def _try_bulk_import(connection: Connection, name: str) -> bool:
    """List the import tasks by the gRPC stub of the client: MilvusClient itself has no method for it."""
    with suppress(MilvusException, grpc.RpcError):
        connection.client._get_connection().list_bulk_insert_tasks(1, name, timeout=_RETRY.call_timeout)
        return True
    return False
