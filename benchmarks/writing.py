"""Three ways to load a Milvus server: upserts into an indexed collection, the index last, and a bulk import.

    python benchmarks/writing.py --uri http://localhost:19530 [--rows 100000] [--batch 256] [--parallel 4]

The rows are synthetic, with 512-d vectors. The server must run on this machine, because it reads the Parquet file.
Prints the seconds until all rows are acknowledged, and until the HNSW index contains all of them.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

# Import from this checkout; this folder itself holds an `ingest.py` and a `search.py`.
sys.path[0] = str(Path(__file__).parents[1])

from lookalike.schema.collection import Fingerprint  # noqa: E402  the path comes first
from lookalike.schema.product import ImageRow  # noqa: E402

if TYPE_CHECKING:
    from lookalike.schema.milvus.connection import Connection

Rows = list[dict[str, Any]]

_TIMEOUT_SECONDS = 1_800


@click.command()
@click.option("--uri", required=True)
@click.option("--rows", default=100_000, show_default=True)
@click.option("--batch", default=256, show_default=True, help="Rows per upsert.")
@click.option("--parallel", default=4, show_default=True, help="Concurrent upserts.")
def main(uri: str, rows: int, batch: int, parallel: int) -> None:
    """Load the same rows in each way, and print how long it took."""
    from benchmarks.synthetic import DIM, Catalogue
    from lookalike.schema.milvus.connection import Connection
    from lookalike.schema.milvus.create import create_columns, create_index_and_load

    connection = Connection.connect(uri, "")
    data = [{field.name: getattr(row, field.name) for field in fields(ImageRow)} for row in Catalogue(rows).rows()]

    def upsert(version: str) -> None:
        batches = [data[start : start + batch] for start in range(0, rows, batch)]
        with ThreadPoolExecutor(parallel) as executor:
            list(executor.map(lambda some: connection.call("upsert", version, data=some), batches))
        connection.call("flush", version)

    ways: dict[str, tuple[Callable[[str], None], bool]] = {
        f"upserts of {batch}, index first": (upsert, True),
        f"upserts of {batch}, index last": (upsert, False),
        "bulk import of Parquet": (lambda version: _import_parquet(uri, version, data), True),
    }
    print(f"{rows} rows, {parallel} concurrent upserts      {'written':>9} {'indexed':>13}")
    for name, (write, index_first) in ways.items():
        version = f"writing_{time.time_ns()}"
        create_columns(connection, version, Fingerprint("bench", "none", DIM, "none", "none"))
        if index_first:
            create_index_and_load(connection, version)
        started = time.perf_counter()
        write(version)
        write_seconds = time.perf_counter() - started
        if not index_first:
            create_index_and_load(connection, version)
        _await_index(connection, version, rows)
        print(f"  {name:40} {write_seconds:7.1f} s {time.perf_counter() - started:11.1f} s", flush=True)
        connection.call("drop_collection", version)


def _import_parquet(uri: str, version: str, rows: Rows) -> None:
    """Write a Parquet file and let the server import it; the time to write the file counts."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pymilvus import connections, utility

    connections.connect("bulk", uri=uri)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns["metadata"] = [json.dumps(value) for value in columns["metadata"]]
    with tempfile.TemporaryDirectory() as scratch:
        file = f"{scratch}/rows.parquet"
        pq.write_table(pa.table({**columns, "embedding": pa.array(columns["embedding"], pa.list_(pa.float32()))}), file)
        task = utility.do_bulk_insert(version, [file], using="bulk")
        _wait_until(lambda: _is_imported(utility.get_bulk_insert_state(task, using="bulk")))


def _is_imported(state: Any) -> bool:
    assert "Failed" not in state.state_name, state
    return bool(state.state_name == "Completed")


def _await_index(connection: "Connection", version: str, rows: int) -> None:
    def is_indexed() -> bool:
        index = connection.call("describe_index", version, "embedding")
        return bool(index["pending_index_rows"] == 0 and index["indexed_rows"] >= rows)

    _wait_until(is_indexed)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not done after {_TIMEOUT_SECONDS} s"
        time.sleep(0.5)


if __name__ == "__main__":
    main()
