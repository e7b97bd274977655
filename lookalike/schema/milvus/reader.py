"""What is read of a collection: nearest rows, matching rows, how many they are."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from lookalike.schema.milvus.connection import Connection
from lookalike.schema.product import Vector

Row = Mapping[str, Any]
"""Columns of a row by name, as far as they were asked for."""

Consistency = Literal["Strong", "Session"]
"""Strong sees everything that anyone has written; Session what this client has, at a fortieth of the latency."""


class ServerReader:
    """Reads a version by asking Milvus."""

    def __init__(self, wire: Connection, version: str) -> None:
        self.wire = wire
        self.version = version

    def search(
        self, vectors: Sequence[Vector], limit: int, where: str, fields: Sequence[str], ef: int | None
    ) -> list[list[Row]]:
        """Return the rows nearest to each vector, best first, each with its cosine as `score`."""
        found = self.wire.call(
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
        return [[{**hit["entity"], "score": cosine(hit["distance"])} for hit in answer] for answer in found]

    def fetch(self, where: str, fields: Sequence[str], limit: int, consistency: Consistency) -> list[Row]:
        """Read up to `limit` of the rows that match, in no order; vectors as sequences of numbers."""
        found: list[Row] = self.wire.call(
            "query",
            self.version,
            filter=where,
            output_fields=["image_id", *fields],
            limit=limit,
            consistency_level=consistency,
        )
        return found

    def count(self, where: str, consistency: Consistency) -> int:
        """Count the rows that match."""
        found = self.wire.call(
            "query", self.version, filter=where, output_fields=["count(*)"], consistency_level=consistency
        )
        return int(found[0]["count(*)"])


def cosine(distance: float) -> float:
    """Rounding goes past 1 by a hair; with a vector of zeros it is 0."""
    return 0.0 if np.isnan(distance) else max(-1.0, min(1.0, float(distance)))
