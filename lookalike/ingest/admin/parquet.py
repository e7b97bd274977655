"""A collection as one Parquet file, and back: ids, metadata, hashes and vectors, and whose vectors they are."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from lookalike.schema.collection import (
    FINGERPRINT_PROPERTY,
    LAYOUT,
    LAYOUT_PROPERTY,
    LAYOUTS,
    MAX_BYTES,
    Fingerprint,
    describe_misfit,
    missing_columns,
)
from lookalike.schema.errors import BadSettings, BadSource
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import ImageRow

_TEXTS = ("image_id", "product_id", "image", "source", "image_hash", "metadata_hash", "image_etag", "metadata")
_NUMBERS = ("image_size", "image_mtime")
_LATER = dict.fromkeys(missing_columns(LAYOUTS[0]), "")
_GROUP = 1_000
_UNIT = 1e-3


def export_rows(store: Store, path: Path) -> int:
    """Write every row to a Parquet file, a thousand in memory at a time; return how many.

    `metadata` is JSON, `embedding` a fixed-size list of float32, and the encoder's fingerprint stands in the file's own
    metadata. The file appears under its name when it is whole.
    """
    if path.is_dir():
        raise BadSettings(f"{str(path)!r} is a folder; name a file, such as {path / 'catalogue.parquet'}")
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


def check_file(path: Path) -> Fingerprint:
    """Read whose vectors a file holds, and all of its rows: a file that was changed on its way is found out before.

    Raises BadSource.
    """
    with _opened(path) as table:
        kept = table.schema_arrow.metadata or {}
        layout = kept.get(LAYOUT_PROPERTY.encode(), b"").decode()
        if layout not in map(str, LAYOUTS):
            raise BadSource(f"{str(path)!r} was not written by this version of lookalike export")
        fingerprint = Fingerprint.from_json(kept[FINGERPRINT_PROPERTY.encode()].decode())
        if not table.schema_arrow.equals(_schema(fingerprint, int(layout))):
            raise BadSource(f"{str(path)!r} has other columns than lookalike export writes")
        count = 0
        for batch in table.iter_batches(_GROUP):
            try:
                count += sum(_is_whole(row) for row in _rows(batch))
            except (ValueError, TypeError, AttributeError) as error:
                raise BadSource(
                    f"{str(path)!r} was changed: after row {count} is one that is none ({error})"
                ) from error
        return fingerprint


def import_rows(store: Store, path: Path) -> int:
    """Upsert every row of a file that `export_rows` has written; return how many. Raises BadSource, BadRow."""
    count = 0
    with _opened(path) as table:
        for batch in table.iter_batches(_GROUP):
            count += store.upsert(_rows(batch))
        store.flush_after(count)
        store.require_live()
    return count


def _is_whole(row: ImageRow) -> bool:
    """Raise ValueError for a row that no export holds."""
    if not re.fullmatch("[0-9a-f]{32}", row.image_id):
        raise ValueError(f"image_id {row.image_id!r}")
    if not isinstance(row.metadata, dict):
        raise ValueError(f"{row.image}: the metadata is no object")
    problem = describe_misfit({name: getattr(row, name) for name in MAX_BYTES}, row.metadata)
    if problem or not abs(float(np.linalg.norm(row.embedding)) - 1) < _UNIT:
        raise ValueError(problem or f"{row.image}: the vector is not of unit length")
    return True


def _schema(fingerprint: Fingerprint, layout: int = LAYOUT) -> pa.Schema:
    texts = [name for name in _TEXTS if name not in missing_columns(layout)]
    fields = [pa.field(name, pa.string()) for name in texts] + [pa.field(name, pa.int64()) for name in _NUMBERS]
    embedding = pa.field("embedding", pa.list_(pa.float32(), fingerprint.dim))
    kept = {FINGERPRINT_PROPERTY: fingerprint.to_json(), LAYOUT_PROPERTY: str(layout)}
    return pa.schema([*fields, embedding], metadata=kept)


def _table(rows: list[Row], fingerprint: Fingerprint) -> pa.Table:
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in (*_TEXTS, *_NUMBERS)}
    columns["metadata"] = [json.dumps(metadata, ensure_ascii=False) for metadata in columns["metadata"]]
    vectors = np.asarray([row["embedding"] for row in rows], dtype=np.float32)
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(vectors.ravel(), fingerprint.dim)
    return pa.table(columns, schema=_schema(fingerprint))


def _rows(batch: pa.RecordBatch) -> Iterator[ImageRow]:
    embedding = batch.column("embedding")
    vectors = embedding.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), -1)
    for row, vector in zip(batch.drop_columns(["embedding"]).to_pylist(), vectors, strict=True):
        yield ImageRow(embedding=vector, **{**_LATER, **row, "metadata": json.loads(row["metadata"])})


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
