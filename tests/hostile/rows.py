"""The rows of a collection, vectors included, and how two states of it compare."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Vector

FIELDS = ("product_id", "image", "source", "image_hash", "metadata_hash", "image_size", "image_mtime", "metadata")


class StoredRow(NamedTuple):
    """What a collection has of one image."""

    values: tuple[Any, ...]
    vector: Vector


Rows = Mapping[str, StoredRow]
"""By image_id."""


def read_rows(uri: str, collection: str = "products") -> Rows:
    """Read the live version; none without a collection. Asserts that no row is there twice."""
    store = Store.find(uri, collection=collection)
    if store is None:
        return {}
    with store:
        stored = list(store.rows(fields=[*FIELDS, "embedding"]))
        rows = {
            row["image_id"]: StoredRow(tuple(row[name] for name in FIELDS), np.asarray(row["embedding"], np.float32))
            for row in stored
        }
        assert len(rows) == len(stored) == store.count(), "a row is there twice"
    return rows


def is_same(one: StoredRow | None, other: StoredRow | None) -> bool:
    if one is None or other is None:
        return one is other
    same_shape = one.vector.shape == other.vector.shape
    return one.values == other.values and same_shape and np.allclose(one.vector, other.vector, atol=1e-5)


def are_same(some: Rows, others: Rows) -> bool:
    return some.keys() == others.keys() and all(is_same(row, others[key]) for key, row in some.items())


def are_between(rows: Rows, before: Rows, after: Rows) -> bool:
    """Whether each row is as it was before a change or as it is after it, and none is missing."""
    keys = rows.keys() | before.keys() | after.keys()
    return all(is_same(rows.get(k), before.get(k)) or is_same(rows.get(k), after.get(k)) for k in keys)
