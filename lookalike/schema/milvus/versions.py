"""The versions of a collection, and which of them is live.

The name that users see is an alias. Changing the encoder builds the next version beside the live one, then moves the
alias in one atomic step. The previous version stays until it is dropped.
"""

import time
from dataclasses import dataclass
from types import TracebackType

from lookalike.schema.collection import LEFT_PROPERTY, MADE_PROPERTY, Fingerprint, read_fingerprint
from lookalike.schema.errors import BadSettings
from lookalike.schema.milvus.connection import Connection
from lookalike.schema.milvus.create import create_version, list_versions, version_name
from lookalike.schema.milvus.store import Store
from lookalike.schema.settings import check_collection, check_uri


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a collection; it is `live` when the alias points to it.

    `made` is the time of its creation, in UTC. `left` is the time at which the alias moved away from it, in
    nanoseconds since 1970; 0 if it never did.
    """

    name: str
    number: int
    live: bool
    fingerprint: Fingerprint
    made: str
    left: int


class Versions:
    """All versions of one collection. Close it when done, or use `with`."""

    def __init__(self, uri: str, *, token: str = "", collection: str = "products") -> None:
        self.collection = check_collection(collection)
        self._uri, self._token = uri, token
        # Raises BadSettings, with the names of the collections there, when this one does not exist.
        with Store.open(check_uri(uri), token=token, collection=collection) as store:
            if store.version == collection:
                raise BadSettings(f"{collection!r} is a version; name the collection that it is a version of")
            self._connection = Connection.connect(uri, token)

    def all(self) -> list[Version]:
        """List the versions, oldest first."""
        live = self._connection.call("describe_collection", self.collection)["collection_name"]
        numbers = list_versions(self._connection, self.collection)
        versions = [self._read_version(name, number, live) for name, number in numbers.items()]
        return sorted(versions, key=lambda version: (version.number, version.made, version.name))

    @property
    def live(self) -> Version:
        """Return the version that the alias points to."""
        return next(version for version in self.all() if version.live)

    def open(self, version: str) -> Store:
        """Open a version by its own name."""
        return Store.open_version(self._uri, version, token=self._token)

    def make(self, fingerprint: Fingerprint) -> str:
        """Create the next version, empty; return its name."""
        with self._connection.write_lock:
            name = version_name(self.collection, self.next_number())
            create_version(self._connection, name, fingerprint)
        return name

    def next_number(self) -> int:
        """Return the number of the version that `make` would create."""
        return max(version.number for version in self.all()) + 1

    def make_live(self, version: str) -> None:
        """Point the alias to a version; stores that are opened from now on use it."""
        self._require(version)
        with self._connection.write_lock:
            # Later than any before it, even after the clock was set back.
            left = max(time.time_ns(), *(version.left + 1 for version in self.all()))
            # Before the alias moves, so that a rollback is possible as soon as it has moved.
            self._connection.call("alter_collection_properties", self.live.name, {LEFT_PROPERTY: str(left)})
            self._connection.call("alter_alias", version, self.collection)

    def drop(self, version: str) -> None:
        """Drop a version for good. Raises BadSettings for the live one."""
        self.require_droppable(version)
        with self._connection.write_lock:
            self._connection.call("drop_collection", version)

    def require_droppable(self, name: str) -> Version:
        """Return a version that can be dropped. Raises BadSettings for the live one and an unknown one."""
        version = self._require(name)
        if version.live:
            raise BadSettings(f"{name} is live; make another version of {self.collection!r} live before you drop it")
        return version

    def get_previous(self) -> Version:
        """Return the version that was live before the live one. Raises BadSettings when there is none."""
        earlier = [version for version in self.all() if version.left and not version.live]
        if not earlier:
            raise BadSettings(f"there is no version of {self.collection!r} that was live before {self.live.name}")
        return max(earlier, key=lambda version: version.left)

    def require_once_live(self, name: str) -> Version:
        """Return a version that is or was live. Raises BadSettings for one that was never finished."""
        version = self._require(name)
        if not version.left and not version.live:
            raise BadSettings(f"{name} was never live, so it may be incomplete; complete it with lookalike reindex")
        return version

    def _require(self, name: str) -> Version:
        for version in self.all():
            if version.name == name:
                return version
        raise BadSettings(f"{self.collection!r} has no version {name!r}; list them with lookalike versions")

    def _read_version(self, name: str, number: int, live: str) -> Version:
        properties = self._connection.call("describe_collection", name)["properties"]
        fingerprint = read_fingerprint(name, properties)
        made, left = properties.get(MADE_PROPERTY, ""), int(properties.get(LEFT_PROPERTY, "0"))
        return Version(name, number, name == live, fingerprint, made, left)

    def close(self) -> None:
        """Close the connection to Milvus."""
        self._connection.close()

    def __enter__(self) -> "Versions":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()
