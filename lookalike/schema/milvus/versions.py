"""The versions of a collection, and which of them is live.

The name that users see is an alias. Changing the encoder builds the next version beside the live one and moves the
alias, in one step that every search sees at once; the one before stays until somebody drops it.
"""

import re
import time
from dataclasses import dataclass
from types import TracebackType

from lookalike.schema.collection import FINGERPRINT_PROPERTY, LEFT_PROPERTY, MADE_PROPERTY, Fingerprint
from lookalike.schema.errors import BadSettings
from lookalike.schema.milvus.connection import Connection
from lookalike.schema.milvus.create import create_version, version_name
from lookalike.schema.milvus.store import Store
from lookalike.schema.settings import check_collection, check_uri


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a collection; `live` says that the alias points to it.

    `made` is the time in UTC, `left` the nanosecond at which the alias moved away from it, 0 if it never was live.
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
        # Makes sure that there is one, and says what there is instead.
        with Store.open(check_uri(uri), token=token, collection=collection) as store:
            if store.version == collection:
                raise BadSettings(f"{collection!r} is a version itself; name the collection that it is a version of")
            self._wire = Connection.connect(uri, token)

    def all(self) -> list[Version]:
        """List the versions, oldest first."""
        live = self._wire.call("describe_collection", self.collection)["collection_name"]
        pattern = re.compile(re.escape(self.collection) + r"__v(\d+)_[0-9a-f]{8}")
        found = [match for name in self._wire.call("list_collections") if (match := pattern.fullmatch(name))]
        return sorted(
            (self._version(match[0], int(match[1]), live) for match in found), key=lambda v: (v.number, v.made, v.name)
        )

    @property
    def live(self) -> Version:
        """The version that the alias points to."""
        return next(version for version in self.all() if version.live)

    def open(self, version: str) -> Store:
        """Open a version by its own name."""
        return Store.open_version(self._uri, version, token=self._token)

    def make(self, fingerprint: Fingerprint) -> str:
        """Make the next version, empty; return its name."""
        with self._wire.writing:
            name = version_name(self.collection, max(version.number for version in self.all()) + 1)
            create_version(self._wire, name, fingerprint)
        return name

    def go_live(self, version: str) -> None:
        """Point the alias to a version; every search that is asked from now on is answered by it."""
        self._require(version)
        with self._wire.writing:
            # First, so that a way back is there as soon as it can be needed.
            self._wire.call("alter_collection_properties", self.live.name, {LEFT_PROPERTY: str(time.time_ns())})
            self._wire.call("alter_alias", version, self.collection)

    def drop(self, version: str) -> None:
        """Drop a version for good. Raises BadSettings for the live one."""
        if self._require(version).live:
            raise BadSettings(f"{version} is live; it can be dropped when {self.collection!r} is another version")
        with self._wire.writing:
            self._wire.call("drop_collection", version)

    def before_live(self) -> Version:
        """The version that was live before the one that is. Raises BadSettings when there is none."""
        earlier = [version for version in self.all() if version.left and not version.live]
        if not earlier:
            raise BadSettings(f"there is no version of {self.collection!r} that was live before {self.live.name}")
        return max(earlier, key=lambda version: version.left)

    def once_live(self, name: str) -> Version:
        """A version that was live before. Raises BadSettings for one that was never finished."""
        version = self._require(name)
        if not version.left and not version.live:
            raise BadSettings(f"{name} was never live, so it may not be whole; lookalike reindex completes it")
        return version

    def _require(self, name: str) -> Version:
        for version in self.all():
            if version.name == name:
                return version
        raise BadSettings(f"{self.collection!r} has no version {name!r}; lookalike versions lists them")

    def _version(self, name: str, number: int, live: str) -> Version:
        properties = self._wire.call("describe_collection", name)["properties"]
        fingerprint = Fingerprint.from_json(properties[FINGERPRINT_PROPERTY])
        made, left = properties.get(MADE_PROPERTY, ""), int(properties.get(LEFT_PROPERTY, "0"))
        return Version(name, number, name == live, fingerprint, made, left)

    def close(self) -> None:
        """Let go of Milvus."""
        self._wire.close()

    def __enter__(self) -> "Versions":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()
