"""Three ways of a first load into a Milvus server: rows into an indexed collection, the index last, and a bulk import.

    python benchmarks/writing.py --uri http://localhost:19530 [--rows 100000] [--batch 256] [--lanes 4]

Drawn rows with vectors of 512 numbers. The server has to run on this machine, as it reads the Parquet file itself. What
is printed are the seconds until all rows are acknowledged, and until a search can follow the graph through all of them.
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

# This folder's ingest.py would hide the package `ingest`.
sys.path[0] = str(Path(__file__).parents[1])

from lookalike.schema.collection import Fingerprint  # noqa: E402  the path comes first
from lookalike.schema.product import ImageRow  # noqa: E402

if TYPE_CHECKING:
    from lookalike.schema.milvus.connection import Connection

Rows = list[dict[str, Any]]

_PATIENCE = 1_800


@click.command()
@click.option("--uri", required=True)
@click.option("--rows", default=100_000, show_default=True)
@click.option("--batch", default=256, show_default=True, help="Rows in an upsert.")
@click.option("--lanes", default=4, show_default=True, help="Upserts at the same time.")
def main(uri: str, rows: int, batch: int, lanes: int) -> None:
    """Load the same rows by each way, and print how long it took."""
    from benchmarks.drawn import DIM, Catalogue
    from lookalike.schema.milvus.connection import Connection
    from lookalike.schema.milvus.create import create_columns, create_index_and_load

    wire = Connection.connect(uri, "")
    written = [{field.name: getattr(row, field.name) for field in fields(ImageRow)} for row in Catalogue(rows).rows()]

    def upserts(version: str) -> None:
        batches = [written[start : start + batch] for start in range(0, rows, batch)]
        with ThreadPoolExecutor(lanes) as pool:
            list(pool.map(lambda data: wire.call("upsert", version, data=data), batches))
        wire.call("flush", version)

    ways: dict[str, tuple[Callable[[str], None], bool]] = {
        f"upserts of {batch}, index first": (upserts, True),
        f"upserts of {batch}, index last": (upserts, False),
        "bulk import of Parquet": (lambda version: _bulk(uri, version, written), True),
    }
    print(f"{rows} rows, {lanes} at the same time      {'written':>9} {'in the graph':>13}")
    for name, (write, index_first) in ways.items():
        version = f"writing_{time.time_ns()}"
        create_columns(wire, version, Fingerprint("bench", "none", DIM, "none", "none"))
        if index_first:
            create_index_and_load(wire, version)
        started = time.perf_counter()
        write(version)
        took = time.perf_counter() - started
        if not index_first:
            create_index_and_load(wire, version)
        _await_graph(wire, version, rows)
        print(f"  {name:40} {took:7.1f} s {time.perf_counter() - started:11.1f} s", flush=True)
        wire.call("drop_collection", version)


def _bulk(uri: str, version: str, rows: Rows) -> None:
    """Write a Parquet file and have the server import it; the file's time counts."""
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
        _until(lambda: _imported(utility.get_bulk_insert_state(task, using="bulk")))


def _imported(state: Any) -> bool:
    assert "Failed" not in state.state_name, state
    return bool(state.state_name == "Completed")


def _await_graph(wire: "Connection", version: str, rows: int) -> None:
    def built() -> bool:
        told = wire.call("describe_index", version, "embedding")
        return bool(told["pending_index_rows"] == 0 and told["indexed_rows"] >= rows)

    _until(built)


def _until(done: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE
    while not done():
        assert time.monotonic() < until, f"not done after {_PATIENCE} s"
        time.sleep(0.5)


if __name__ == "__main__":
    main()
