"""Export a collection as CSV or JSON lines, for people and other programs: all but the vectors and the hashes."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lookalike.ingest.admin.export_file import new_file
from lookalike.schema.milvus.store import Store

_COLUMNS = ("image_id", "product_id", "image", "source")


def export_csv(store: Store, path: Path) -> int:
    """Write a row per image, a column per metadata field; lists and objects are JSON. Return how many rows.

    Raises BadSettings when the file cannot be written.
    """
    names = sorted({name for row in store.rows(fields=["metadata"]) for name in row["metadata"]})
    rows = store.rows(fields=[*_COLUMNS[1:], "metadata"])
    count = 0
    with new_file(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*_COLUMNS, *names])
        for row in rows:
            writer.writerow([*(row[name] for name in _COLUMNS), *_list_cells(row["metadata"], names)])
            count += 1
    return count


def export_json_lines(store: Store, path: Path) -> int:
    """Write an object per image; return how many. Raises BadSettings when the file cannot be written."""
    count = 0
    with new_file(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        for row in store.rows(fields=[*_COLUMNS[1:], "metadata"]):
            values = {name: row[name] for name in (*_COLUMNS, "metadata")}
            file.write(json.dumps(values, ensure_ascii=False) + "\n")
            count += 1
    return count


def _list_cells(metadata: Mapping[str, Any], names: Iterable[str]) -> list[Any]:
    values = (metadata.get(name, "") for name in names)
    return [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
