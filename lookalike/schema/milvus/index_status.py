"""Whether a server is still building the index of the vectors."""

import time

from lookalike.schema.milvus.connection import Connection

_POLL_SECONDS = 2.0
_LOAD_SECONDS = 30.0
"""A server may search without a part of the index that it has built, for as long as this."""


class IndexStatus:
    """The state of a version's vector index on a server, read from the server every two seconds at most."""

    def __init__(self, connection: Connection, version: str) -> None:
        self._connection = connection
        self._version = version
        self._polled_at = self._building_until = float("-inf")

    def is_building(self) -> bool:
        """Return whether rows wait to be indexed, or did within the last 30 seconds."""
        now = time.monotonic()
        if now >= self._polled_at + _POLL_SECONDS:
            self._polled_at = now
            if self._connection.call("describe_index", self._version, "embedding").get("pending_index_rows"):
                self._building_until = now + _LOAD_SECONDS
        return now < self._building_until
