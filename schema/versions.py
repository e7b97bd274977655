"""The versions of a collection, and which of them is live.

The name that users see is an alias. Changing the encoder builds the next version beside the live one and moves the
alias, in one step that every search sees at once; the one before stays until somebody drops it.
"""

import re
from dataclasses import dataclass
from types import TracebackType

from schema.collection import FINGERPRINT_PROPERTY, MADE_PROPERTY, Fingerprint
from schema.errors import BadSettings
from schema.making import make_version, version_name
from schema.settings import check_collection, check_uri
from schema.store import Store
from schema.wire import Wire


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a collection; `made` is the time in UTC, `live` says that the alias points to it."""

    name: str
    number: int
    live: bool
    fingerprint: Fingerprint
    made: str


class Versions:
    """All versions of one collection. Close it when done, or use `with`."""

    def __init__(self, uri: str, *, token: str = "", collection: str = "products") -> None:
        self.collection = check_collection(collection)
        self._uri, self._token = uri, token
        # Makes sure that there is one, and says what there is instead.
        with Store.open(check_uri(uri), token=token, collection=collection):
            self._wire = Wire.connect(uri, token)

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
        return Store.open(self._uri, token=self._token, collection=version)

    def make(self, fingerprint: Fingerprint) -> str:
        """Make the next version, empty; return its name."""
        with self._wire.writing:
            name = version_name(self.collection, max(version.number for version in self.all()) + 1)
            make_version(self._wire, name, fingerprint)
        return name

    def go_live(self, version: str) -> None:
        """Point the alias to a version; every search that is asked from now on is answered by it."""
        self._require(version)
        with self._wire.writing:
            self._wire.call("alter_alias", version, self.collection)

    def drop(self, version: str) -> None:
        """Drop a version for good. Raises BadSettings for the live one."""
        if self._require(version).live:
            raise BadSettings(f"{version} is live; it can be dropped when {self.collection!r} is another version")
        with self._wire.writing:
            self._wire.call("drop_collection", version)

    def before_live(self) -> Version:
        """The version that was live before the one that is. Raises BadSettings when there is none."""
        versions = self.all()
        earlier = versions[: [version.live for version in versions].index(True)]
        if not earlier:
            raise BadSettings(f"there is no version of {self.collection!r} before the live one, {self.live.name}")
        return earlier[-1]

    def _require(self, name: str) -> Version:
        for version in self.all():
            if version.name == name:
                return version
        raise BadSettings(f"{self.collection!r} has no version {name!r}; lookalike versions lists them")

    def _version(self, name: str, number: int, live: str) -> Version:
        properties = self._wire.call("describe_collection", name)["properties"]
        fingerprint = Fingerprint.from_json(properties[FINGERPRINT_PROPERTY])
        return Version(name, number, name == live, fingerprint, properties.get(MADE_PROPERTY, ""))

    def close(self) -> None:
        """Let go of Milvus."""
        self._wire.close()

    def __enter__(self) -> "Versions":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()
