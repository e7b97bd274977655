"""A collection as one Parquet file, and back: ids, metadata, hashes and vectors, and whose vectors they are."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from schema.collection import FINGERPRINT_PROPERTY, LAYOUT, LAYOUT_PROPERTY, Fingerprint
from schema.errors import BadSettings, BadSource
from schema.product import ImageRow
from schema.store import Fields, Store

_TEXTS = ("image_id", "product_id", "image", "source", "image_hash", "metadata_hash", "metadata")
_NUMBERS = ("image_size", "image_mtime")
_GROUP = 1_000


def export_rows(store: Store, path: Path) -> int:
    """Write every row to a Parquet file, a thousand in memory at a time; return how many.

    `metadata` is JSON, `embedding` a fixed-size list of float32, and the encoder's fingerprint stands in the file's own
    metadata. The file appears under its name when it is whole.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    rows = store.rows(fields=[*_TEXTS[1:], *_NUMBERS, "embedding"])
    count = 0
    with _disk_errors(path):
        with parquet.ParquetWriter(unfinished, _schema(store.fingerprint), compression="zstd") as writer:
            while group := list(islice(rows, _GROUP)):
                writer.write_table(_table(group, store.fingerprint))
                count += len(group)
        os.replace(unfinished, path)  # noqa: PTH105  the same
    return count


def read_fingerprint(path: Path) -> Fingerprint:
    """Read whose vectors a file holds. Raises BadSource for one that `export_rows` has not written."""
    with _opened(path) as table:
        kept = table.schema_arrow.metadata or {}
        if kept.get(LAYOUT_PROPERTY.encode()) != str(LAYOUT).encode():
            raise BadSource(f"{str(path)!r} was not written by this version of lookalike export")
        return Fingerprint.from_json(kept[FINGERPRINT_PROPERTY.encode()].decode())


def import_rows(store: Store, path: Path) -> int:
    """Upsert every row of a file that `export_rows` has written; return how many. Raises BadSource, BadRow."""
    count = 0
    with _opened(path) as table:
        for batch in table.iter_batches(_GROUP):
            count += store.upsert(_rows(batch))
        store.settle(count)
    return count


def _schema(fingerprint: Fingerprint) -> pa.Schema:
    fields = [pa.field(name, pa.string()) for name in _TEXTS] + [pa.field(name, pa.int64()) for name in _NUMBERS]
    embedding = pa.field("embedding", pa.list_(pa.float32(), fingerprint.dim))
    kept = {FINGERPRINT_PROPERTY: fingerprint.to_json(), LAYOUT_PROPERTY: str(LAYOUT)}
    return pa.schema([*fields, embedding], metadata=kept)


def _table(rows: list[Fields], fingerprint: Fingerprint) -> pa.Table:
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in (*_TEXTS, *_NUMBERS)}
    columns["metadata"] = [json.dumps(metadata, ensure_ascii=False) for metadata in columns["metadata"]]
    vectors = np.asarray([row["embedding"] for row in rows], dtype=np.float32)
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(vectors.ravel(), fingerprint.dim)
    return pa.table(columns, schema=_schema(fingerprint))


def _rows(batch: pa.RecordBatch) -> Iterator[ImageRow]:
    embedding = batch.column("embedding")
    vectors = embedding.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), -1)
    for row, vector in zip(batch.select([*_TEXTS, *_NUMBERS]).to_pylist(), vectors, strict=True):
        yield ImageRow(embedding=vector, **{**row, "metadata": json.loads(row["metadata"])})


@contextmanager
def _opened(path: Path) -> Iterator[parquet.ParquetFile]:
    try:
        with parquet.ParquetFile(path) as table:
            yield table
    except pa.ArrowException as error:
        raise BadSource(f"{str(path)!r} is no Parquet file that can be read: {error}") from error
    except OSError as error:
        raise BadSource(f"{str(path)!r} cannot be read: {error.strerror or error}") from error


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadSettings(f"{str(path)!r} cannot be written: {error.strerror or error}") from error
