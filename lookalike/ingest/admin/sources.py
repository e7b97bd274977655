"""The sources of a collection: list them, rename one, remove one with all of its rows."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from urllib.parse import quote

import numpy as np

from lookalike.ingest.admin.deletion import DeleteResult, delete_images
from lookalike.ingest.pipeline.move import describe_unknown_source
from lookalike.ingest.run_lock import run_lock
from lookalike.ingest.sources.files import is_remote
from lookalike.ingest.sources.source import check_source_name
from lookalike.schema.collection import COLUMNS
from lookalike.schema.errors import BadSettings
from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import ImageRow, ProductImage

_BATCH = 500
"""Rows, with their vectors, in memory at once."""


@dataclass(frozen=True, slots=True)
class Source:
    """A source, and how many images of how many products it has in the collection."""

    source: str
    images: int
    products: int


def list_sources(store: Store) -> list[Source]:
    """List the sources by name, reading every row but no vectors."""
    images: Counter[str] = Counter()
    products: defaultdict[str, set[str]] = defaultdict(set)
    for row in store.rows(fields=["source", "product_id"]):
        images[row["source"]] += 1
        products[row["source"]].add(row["product_id"])
    return [Source(name, images[name], len(products[name])) for name in sorted(images)]


def remove_source(store: Store, source: str, *, dry_run: bool = False) -> DeleteResult:
    """Delete all rows of a source, or only count them. Raises BadSettings for an unknown one, and AlreadyRunning."""
    with _lock(store, source):
        rows = {row["image_id"]: row["product_id"] for row in _read_rows(store, source, ["product_id"])}
        if not dry_run:
            delete_images(store, list(rows))
    return DeleteResult(len(rows), len(set(rows.values())))


def rename_source(store: Store, old: str, new: str, *, dry_run: bool = False) -> Source:
    """Give the rows of a source to another name, or only count them; the next ingest under it finds them unchanged.

    The new rows are written before the old ones are deleted: run it again to complete a rename that was killed. Raises
    AlreadyRunning, and BadSettings when there is no source `old`, when `new` has other rows, or when the key of a row
    cannot be computed.
    """
    if not new.strip():
        raise BadSettings(f"the new name of {old!r} is empty; give it one")
    if check_source_name(new) == old:
        raise BadSettings(f"the source is called {old!r} already")
    with _lock(store, old), _lock(store, new):
        rows = list(_read_rows(store, old, ["product_id", "image"]))
        keys = _make_keys(rows, old, new)
        missing = _require_room(store, keys, new)
        if not dry_run:
            _copy_rows(store, missing, new)
            delete_images(store, list(keys))
    return Source(new, len(rows), len({row["product_id"] for row in rows}))


def _lock(store: Store, source: str) -> AbstractContextManager[None]:
    return run_lock(store.uri, store.name, source)


def _read_rows(store: Store, source: str, fields: Sequence[str]) -> Iterator[Row]:
    """Read the rows of a source. Raises BadSettings when there are none."""
    rows = store.rows(where=column_in("source", [source]), fields=fields)
    first = next(rows, None)
    if first is None:
        raise BadSettings(describe_unknown_source(store, source))
    yield first
    yield from rows


def _make_keys(rows: Sequence[Row], old: str, new: str) -> dict[str, str]:
    """Return for the key of each row its key under the new name. Raises BadSettings when one cannot be computed."""
    keys: dict[str, str] = {}
    lost: list[str] = []
    for row in rows:
        reference = _find_reference(row, old)
        if reference is None:
            lost.append(row["image"])
        else:
            keys[row["image_id"]] = _key(new, row["product_id"], reference)
    if lost:
        raise BadSettings(
            f"{len(lost)} of the {len(rows)} rows of {old!r} do not say under which name the source has their image "
            f"(the first is {lost[0]!r}), so they cannot be renamed. Nothing was changed. Ingest the source under its "
            f"new name instead: lookalike ingest SOURCE --source-name NEW --move-source OLD"
        )
    return keys


def _find_reference(row: Row, source: str) -> str | None:
    """Return the name of an image inside its source: the one from which the key of its row was made."""
    candidates = _list_references(row["image"], source)
    return next((name for name in candidates if _key(source, row["product_id"], name) == row["image_id"]), None)


def _list_references(image: str, source: str) -> Iterator[str]:
    """Yield how a source may name an image: in full, by a path relative to a folder above it, or as a file: URI."""
    yield image
    if is_remote(image):
        return
    parts = image.split("/")
    relative = ["/".join(parts[start:]) for start in range(1, len(parts))]
    yield from relative
    relative.append(os.path.relpath(image, os.path.dirname(source) or "."))  # noqa: PTH120  Path has no `..`
    yield from (relative[-1], *(f"./{path}" for path in relative))
    yield from (f"file://{image}", f"file://{quote(image)}")


def _key(source: str, product_id: str, reference: str) -> str:
    return ProductImage.named(source, product_id, reference, "", {}).image_id


def _require_room(store: Store, keys: Mapping[str, str], new: str) -> dict[str, str]:
    """Return the keys that have no row under the new name yet. Raises BadSettings when it has rows of its own."""
    taken = {row["image_id"] for row in store.rows(where=column_in("source", [new]), fields=["source"])}
    missing = {key: new_key for key, new_key in keys.items() if new_key not in taken}
    # A rename that was killed has written a part of the rows, or all of them and deleted a part of the old ones.
    if missing and not taken <= set(keys.values()):
        raise BadSettings(
            f"there is a source {new!r} already, with {len(taken)} images; choose another name, or store this source "
            f"under that one: lookalike ingest SOURCE --source-name NEW --move-source OLD"
        )
    return missing


def _copy_rows(store: Store, keys: Mapping[str, str], new: str) -> None:
    """Write rows again, with their vectors, under their new keys and name."""
    stored = store.get(list(keys), COLUMNS[1:], consistency="Strong")
    while batch := list(islice(stored, _BATCH)):
        store.upsert([_rename_row(row, keys[row["image_id"]], new) for row in batch])


def _rename_row(row: Row, key: str, new: str) -> ImageRow:
    values = {name: row[name] for name in COLUMNS}
    embedding = np.asarray(row["embedding"], dtype=np.float32)
    return ImageRow(**{**values, "image_id": key, "source": new, "embedding": embedding})
