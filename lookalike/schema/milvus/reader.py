"""Reading a version of a collection by Milvus's own calls: nearest rows, matching rows, their number."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from lookalike.schema.milvus.connection import Connection
from lookalike.schema.product import Vector

Row = Mapping[str, Any]
"""The requested columns of a row, by name."""

Consistency = Literal["Strong", "Session"]
"""Strong reads everything that any client has written. Session reads what this client has written, 40 times faster."""


class ServerReader:
    """Reads a version of a collection by calling Milvus."""

    def __init__(self, connection: Connection, version: str) -> None:
        self.connection = connection
        self.version = version

    def search(
        self, vectors: Sequence[Vector], limit: int, where: str, fields: Sequence[str], ef: int | None
    ) -> list[list[Row]]:
        """Return the rows nearest to each vector, best first, each with its cosine as `score`."""
        results = self.connection.call(
            "search",
            self.version,
            data=list(vectors),
            anns_field="embedding",
            limit=limit,
            filter=where,
            output_fields=["image_id", *fields],
            search_params={} if ef is None else {"params": {"ef": ef}},
            consistency_level="Session",
        )
        return [[{**hit["entity"], "score": to_cosine(hit["distance"])} for hit in hits] for hits in results]

    def fetch(self, where: str, fields: Sequence[str], limit: int, consistency: Consistency) -> list[Row]:
        """Read up to `limit` of the rows that match, in no order; vectors as sequences of numbers."""
        rows: list[Row] = self.connection.call(
            "query",
            self.version,
            filter=where,
            output_fields=["image_id", *fields],
            limit=limit,
            consistency_level=consistency,
        )
        return rows

    def count(self, where: str, consistency: Consistency) -> int:
        """Count the rows that match."""
        rows = self.connection.call(
            "query", self.version, filter=where, output_fields=["count(*)"], consistency_level=consistency
        )
        return int(rows[0]["count(*)"])


def to_cosine(distance: float) -> float:
    """Clip what Milvus returns to -1 to 1, which rounding may pass; the cosine with a vector of zeros is 0."""
    return 0.0 if np.isnan(distance) else max(-1.0, min(1.0, float(distance)))
