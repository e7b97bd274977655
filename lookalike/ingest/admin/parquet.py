"""Export a collection to one Parquet file and import it: ids, metadata, hashes, vectors and the encoder fingerprint."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from lookalike.ingest.admin.export_file import new_file
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
from lookalike.schema.errors import BadSource
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import ImageRow

_TEXT_COLUMNS = (
    *("image_id", "product_id", "image", "source"),
    *("image_hash", "metadata_hash", "image_etag", "metadata"),
)
_INT_COLUMNS = ("image_size", "image_mtime")
_ADDED_COLUMNS = dict.fromkeys(missing_columns(LAYOUTS[0]), "")
"""Columns that the first layout does not have, and their value for its rows."""

_BATCH = 1_000
"""Rows in memory at once."""

_NORM_TOLERANCE = 1e-3


def export_rows(store: Store, path: Path) -> int:
    """Write every row to a Parquet file, a thousand in memory at a time; return how many.

    `metadata` is JSON, `embedding` a fixed-size list of float32. The encoder fingerprint is in the file's own metadata.
    The file gets its name when it is complete. Raises BadSettings when it cannot be written.
    """
    rows = store.rows(fields=[*_TEXT_COLUMNS[1:], *_INT_COLUMNS, "embedding"])
    count = 0
    with (
        new_file(path) as unfinished,
        parquet.ParquetWriter(unfinished, _build_schema(store.fingerprint), compression="zstd") as writer,
    ):
        while batch := list(islice(rows, _BATCH)):
            writer.write_table(_build_table(batch, store.fingerprint))
            count += len(batch)
    return count


def check_export_file(path: Path) -> Fingerprint:
    """Check every row of an exported file, so that a damaged file is found before any row is imported.

    Returns the encoder fingerprint. Raises BadSource.
    """
    with _open_parquet(path) as table:
        properties = table.schema_arrow.metadata or {}
        layout = properties.get(LAYOUT_PROPERTY.encode(), b"").decode()
        if layout not in map(str, LAYOUTS):
            raise BadSource(f"{str(path)!r} was not written by this version of lookalike export; export it again")
        fingerprint = Fingerprint.from_json(properties[FINGERPRINT_PROPERTY.encode()].decode())
        if not table.schema_arrow.equals(_build_schema(fingerprint, int(layout))):
            raise BadSource(f"{str(path)!r} has other columns than lookalike export writes; export it again")
        count = 0
        for batch in table.iter_batches(_BATCH):
            try:
                for row in _read_rows(batch):
                    _check_row(row)
                    count += 1
            except (ValueError, TypeError, AttributeError) as error:
                raise BadSource(
                    f"{str(path)!r} was changed since its export: row {count + 1} is invalid ({error}); export it again"
                ) from error
        if not count:
            raise BadSource(f"{str(path)!r} has no rows; there is nothing to import")
        return fingerprint


def import_rows(store: Store, path: Path) -> int:
    """Upsert every row of a file that `export_rows` has written; return how many. Raises BadSource, BadRow."""
    count = 0
    with _open_parquet(path) as table:
        for batch in table.iter_batches(_BATCH):
            count += store.upsert(_read_rows(batch))
        store.flush_after(count)
        store.require_live()
    return count


def count_rows(store: Store | None, path: Path) -> tuple[int, int]:
    """Return how many rows `import_rows` would write, and how many of them in place of rows that the store has."""
    count, replaced = 0, 0
    with _open_parquet(path) as table:
        for batch in table.iter_batches(_BATCH, columns=["image_id"]):
            count += len(batch)
            if store is not None:
                replaced += sum(1 for _ in store.get(batch.column("image_id").to_pylist(), [], consistency="Strong"))
    return count, replaced


def _check_row(row: ImageRow) -> None:
    """Raise ValueError for a row that no export writes."""
    if not re.fullmatch("[0-9a-f]{32}", row.image_id):
        raise ValueError(f"image_id {row.image_id!r}")
    if not isinstance(row.metadata, dict):
        raise ValueError(f"{row.image}: the metadata is not an object")
    problem = describe_misfit({name: getattr(row, name) for name in MAX_BYTES}, row.metadata)
    if problem or not abs(float(np.linalg.norm(row.embedding)) - 1) < _NORM_TOLERANCE:
        raise ValueError(problem or f"{row.image}: the vector is not of unit length")


def _build_schema(fingerprint: Fingerprint, layout: int = LAYOUT) -> pa.Schema:
    texts = [name for name in _TEXT_COLUMNS if name not in missing_columns(layout)]
    fields = [pa.field(name, pa.string()) for name in texts] + [pa.field(name, pa.int64()) for name in _INT_COLUMNS]
    embedding = pa.field("embedding", pa.list_(pa.float32(), fingerprint.dim))
    properties = {FINGERPRINT_PROPERTY: fingerprint.to_json(), LAYOUT_PROPERTY: str(layout)}
    return pa.schema([*fields, embedding], metadata=properties)


def _build_table(rows: list[Row], fingerprint: Fingerprint) -> pa.Table:
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in (*_TEXT_COLUMNS, *_INT_COLUMNS)}
    columns["metadata"] = [json.dumps(metadata, ensure_ascii=False) for metadata in columns["metadata"]]
    vectors = np.asarray([row["embedding"] for row in rows], dtype=np.float32)
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(vectors.ravel(), fingerprint.dim)
    return pa.table(columns, schema=_build_schema(fingerprint))


def _read_rows(batch: pa.RecordBatch) -> Iterator[ImageRow]:
    embedding = batch.column("embedding")
    vectors = embedding.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), -1)
    for row, vector in zip(batch.drop_columns(["embedding"]).to_pylist(), vectors, strict=True):
        yield ImageRow(embedding=vector, **{**_ADDED_COLUMNS, **row, "metadata": json.loads(row["metadata"])})


@contextmanager
def _open_parquet(path: Path) -> Iterator[parquet.ParquetFile]:
    """Open a file; errors of reading it within the block are raised as BadSource."""
    try:
        with parquet.ParquetFile(path) as table:
            yield table
    except pa.ArrowException as error:
        raise BadSource(f"{str(path)!r} is no Parquet file that can be read: {error}") from error
    except OSError as error:
        raise BadSource(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
