"""What a Milvus is and can do, found by asking it: read from the user's collection, tried on one of our own."""

import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from lookalike.schema.collection import FINGERPRINT_PROPERTY, Fingerprint
from lookalike.schema.errors import StoreUnavailable, StoreUnreachable
from lookalike.schema.milvus.connection import Connection, RetryPolicy
from lookalike.schema.milvus.driver import DataType, LoadState, MilvusClient, MilvusException
from lookalike.schema.settings import is_lite

_PATIENCE = RetryPolicy(call=10.0, retry=5.0)
_SCRATCH = "lookalike_doctor_"
_LEFT_SECONDS = 600
_CROWD = 64
"""Rows of one group that are nearer than the only one of another: more than Milvus Lite fetches for two groups."""


@dataclass(frozen=True, slots=True)
class FoundCollection:
    """A collection as it was found: `fingerprint` is None when we did not make it, `rows` when it is not loaded."""

    version: str
    fingerprint: Fingerprint | None
    rows: int | None


class CapabilityProbe:
    """A look at a Milvus, which takes seconds and changes nothing there. Close it when done, or use `with`."""

    def __init__(self, wire: Connection) -> None:
        self._wire = wire

    @classmethod
    def connect(cls, uri: str, token: str) -> "CapabilityProbe":
        """Reach Milvus. Raises StoreUnreachable."""
        return cls(Connection.connect(uri, token, _PATIENCE))

    def server_version(self) -> str:
        """What it calls itself."""
        return str(self._wire.call("get_server_version"))

    def collection(self, name: str) -> FoundCollection | None:
        """Look at a collection, None when there is none."""
        if not self._wire.call("has_collection", name):
            return None
        described = self._wire.call("describe_collection", name)
        version, told = described["collection_name"], described.get("properties", {}).get(FINGERPRINT_PROPERTY)
        if is_lite(self._wire.uri):
            # In this process only, and for its length.
            self._wire.call("load_collection", version)
        loaded = self._wire.call("get_load_state", version)["state"] == LoadState.Loaded
        rows = self._wire.call("query", version, output_fields=["count(*)"])[0]["count(*)"] if loaded else None
        return FoundCollection(version, Fingerprint.from_json(told) if told else None, rows)

    def features(self) -> dict[str, bool]:
        """Try what servers differ in on a collection of our own, which is dropped whatever happens."""
        tried = {
            "aliases": _aliases,
            "group by": _group_by,
            "partial update": _partial_update,
            "bulk import": _bulk_import,
        }
        with _scratch(self._wire) as name:
            return {feature: _works(try_it, self._wire, name) for feature, try_it in tried.items()}

    def close(self) -> None:
        """Let go of Milvus."""
        self._wire.close()

    def __enter__(self) -> "CapabilityProbe":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def lite_features() -> dict[str, bool]:
    """The same of Milvus Lite, in a folder of its own: it is a library, and nobody's data need be near."""
    with tempfile.TemporaryDirectory() as folder, CapabilityProbe.connect(str(Path(folder) / "probe.db"), "") as probe:
        return probe.features()


def is_locked_by_another(uri: str) -> bool:
    """Tell whether another process has a Milvus Lite folder open."""
    lock = Path(uri) / "LOCK"
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return False
    if not lock.exists():
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _scratch(wire: Connection) -> Iterator[str]:
    """A small collection; what a doctor that was killed has left behind goes as well."""
    name = f"{_SCRATCH}{int(time.time())}_{secrets.token_hex(4)}"
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=16)
    schema.add_field("kind", DataType.VARCHAR, max_length=16)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    index = MilvusClient.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    rows = [{"key": f"near{n}", "kind": "crowd", "vector": [1.0, 0.0]} for n in range(_CROWD)]
    with wire.writing:
        _sweep(wire)
        try:
            wire.call("create_collection", name, schema=schema, index_params=index)
            wire.call("upsert", name, data=[*rows, {"key": "far", "kind": "single", "vector": [0.0, 1.0]}])
            yield name
        finally:
            wire.call("drop_collection", name)


def _sweep(wire: Connection) -> None:
    for name in wire.call("list_collections"):
        made = name.removeprefix(_SCRATCH).split("_")[0]
        if name.startswith(_SCRATCH) and made.isdigit() and int(made) < time.time() - _LEFT_SECONDS:
            wire.call("drop_collection", name)


def _works(try_it: Any, wire: Connection, name: str) -> bool:
    """Whether it did what it should; a refusal is a no, and Milvus gone is no answer."""
    try:
        return bool(try_it(wire, name))
    except StoreUnreachable:
        raise
    except StoreUnavailable:
        return False


def _aliases(wire: Connection, name: str) -> bool:
    alias = f"{name}_alias"
    wire.call("create_alias", name, alias)
    try:
        return bool(wire.call("describe_collection", alias)["collection_name"] == name)
    finally:
        wire.call("drop_alias", alias)


def _group_by(wire: Connection, name: str) -> bool:
    """Some servers ignore it, Milvus Lite groups what it has fetched: the two kinds have to be found."""
    found = wire.call(
        "search",
        name,
        data=[[1.0, 0.0]],
        limit=2,
        group_by_field="kind",
        output_fields=["kind"],
        consistency_level="Strong",
    )
    return {hit["entity"]["kind"] for hit in found[0]} == {"crowd", "single"}


def _partial_update(wire: Connection, name: str) -> bool:
    wire.call("upsert", name, data=[{"key": "far", "kind": "other"}], partial_update=True)
    [row] = wire.call(
        "query", name, filter='key == "far"', output_fields=["kind", "vector"], consistency_level="Strong"
    )
    return row["kind"] == "other" and list(row["vector"]) == [0.0, 1.0]


def _bulk_import(wire: Connection, name: str) -> bool:
    """Whether it has such tasks to list: MilvusClient itself has no call for them."""
    with suppress(MilvusException, grpc.RpcError):
        wire._client._get_connection().list_bulk_insert_tasks(1, name, timeout=_PATIENCE.call)
        return True
    return False
