"""Whether a server has its search graph built."""

import time

from lookalike.schema.milvus.connection import Connection

_LOOK = 2.0
_TAKEN_UP = 30.0
"""Seconds: what is built is taken up only a while later."""


class IndexStatus:
    """The index of a version on a server, looked at every two seconds at most."""

    def __init__(self, wire: Connection, version: str) -> None:
        self._wire = wire
        self._version = version
        self._looked = self._until = float("-inf")

    def building(self) -> bool:
        """Tell whether rows wait for the graph, or did a moment ago."""
        now = time.monotonic()
        if now >= self._looked + _LOOK:
            self._looked = now
            if self._wire.call("describe_index", self._version, "embedding").get("pending_index_rows"):
                self._until = now + _TAKEN_UP
        return now < self._until
