"""A collection in numbers: images, products, sources and metadata columns."""

from collections import Counter
from dataclasses import dataclass

from lookalike.schema.milvus.store import Store


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """The counts of a collection; `columns` has for each metadata column how many images have it, by type."""

    images: int
    products: int
    columns: dict[str, dict[str, int]]
    sources: dict[str, int]


def count_collection(store: Store) -> CollectionStats:
    """Count images, products, sources and metadata columns, reading every row but no vectors."""
    products: set[str] = set()
    columns: dict[str, Counter[str]] = {}
    sources: Counter[str] = Counter()
    for row in store.rows(fields=["product_id", "source", "metadata"]):
        products.add(row["product_id"])
        sources[row["source"]] += 1
        for name, value in row["metadata"].items():
            columns.setdefault(name, Counter())[_type_name(value)] += 1
    return CollectionStats(
        images=sources.total(),
        products=len(products),
        columns={name: dict(counts) for name, counts in sorted(columns.items())},
        sources=dict(sources),
    )


def _type_name(value: object) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return names.get(type(value), "null")
