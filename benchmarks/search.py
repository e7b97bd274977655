"""Latency, throughput and recall of nearest-row search: lookalike, plain pymilvus on the same collection, and FAISS.

    python benchmarks/search.py --rows 100000
    python benchmarks/search.py --rows 100000 --uri http://localhost:19530

The cases alternate, query by query. FAISS (pip install faiss-cpu) runs an HNSW index with the server's parameters
(M = 24, efConstruction = 200, the same ef) and, for comparison, exact search. --folder keeps collections and indexes.
"""

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import numpy as np

# Import from this checkout; this folder itself holds an `ingest.py` and a `search.py`.
sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.synthetic import DIM, Catalogue, Vectors  # noqa: E402  the path comes first
from lookalike.schema.milvus.driver import MilvusClient  # noqa: E402
from lookalike.schema.milvus.store import Store  # noqa: E402
from lookalike.schema.milvus.store_reader import SERVER_EF  # noqa: E402

LIMIT = 10
SELECTIVITIES = (1.0, 0.5, 0.05, 0.01, 0.001)
_CLIENTS = 8
_THROUGHPUT_SECONDS = 3.0
_MAX_SECONDS = 30.0
"""Time limit for the queries of one filter."""

Search = Callable[[Vectors], list[int]]
"""From a vector, shape (dim,), to the indices of the nearest rows."""


@dataclass
class Figures:
    """One case: milliseconds, queries per second with eight clients, recall of the nearest ten."""

    rows: int
    selectivity: float
    case: str
    p50: float
    p99: float
    qps: float | None
    recall: float


@click.command()
@click.option("--rows", default=10_000, show_default=True)
@click.option("--queries", default=200, show_default=True)
@click.option("--uri", help="A Milvus server.  [default: Milvus Lite]")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep collections and indexes here.")
@click.option(
    "--json", "output", type=click.Path(path_type=Path), help="Append the figures to this file, as JSON lines."
)
def main(rows: int, queries: int, uri: str | None, folder: Path | None, output: Path | None) -> None:
    """Print a table for each filter."""
    catalogue = Catalogue(rows)
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as data:
        Path(data).mkdir(exist_ok=True)
        address = uri or f"{data}/search_{rows}.db"
        with catalogue.fill(address) as store:
            while store.is_indexing():
                time.sleep(5)
            kind = "Milvus Lite" if store.is_exact else f"server, ef {SERVER_EF}"
            print(f"{rows} rows, {DIM}-d, {kind}, {os.cpu_count()} cores, Python {platform.python_version()}")
            hnsw = None if store.is_exact else _load_hnsw(catalogue, Path(data))
            for selectivity in SELECTIVITIES:
                for figures in _measure(catalogue, store, hnsw, selectivity, queries):
                    _print_figures(figures, output)


def _measure(catalogue: Catalogue, store: Store, hnsw: Any, selectivity: float, count: int) -> list[Figures]:
    cases = _make_cases(catalogue, store, hnsw, selectivity)
    matching = catalogue.vectors[catalogue.chance < selectivity]
    milliseconds: dict[str, list[float]] = {name: [] for name in cases}
    recalls: dict[str, list[float]] = {name: [] for name in cases}
    deadline = time.perf_counter() + _MAX_SECONDS
    queries = catalogue.make_queries(count)
    for vector in queries:
        best_scores = np.sort(matching @ vector)[-LIMIT:]
        for name, search in cases.items():
            started = time.perf_counter()
            rows = search(vector)
            milliseconds[name].append((time.perf_counter() - started) * 1_000)
            scores = catalogue.vectors[rows] @ vector
            recalls[name].append(float((scores >= best_scores[0] - 1e-6).sum()) / len(best_scores))
        if time.perf_counter() > deadline:
            break
    throughput = {
        name: _measure_throughput(search, queries) if selectivity == 1 else None for name, search in cases.items()
    }
    return [
        Figures(
            len(catalogue.vectors),
            selectivity,
            f"{name}{'' if store.is_exact else ' (server)'}",
            float(np.percentile(milliseconds[name], 50)),
            float(np.percentile(milliseconds[name], 99)),
            throughput[name],
            float(np.mean(recalls[name])),
        )
        for name in cases
    ]


def _make_cases(catalogue: Catalogue, store: Store, hnsw: Any, selectivity: float) -> dict[str, Search]:
    where = "" if selectivity == 1 else f'metadata["chance"] < {selectivity}'
    client = MilvusClient(store.uri)
    parameters = {} if store.is_exact else {"params": {"ef": SERVER_EF}}

    def search_lookalike(vector: Vectors) -> list[int]:
        return [int(str(hit["image"])[:-4]) for hit in store.search(vector, LIMIT, where=where, fields=["image"])]

    def search_pymilvus(vector: Vectors) -> list[int]:
        [hits] = client.search(
            store.version,
            data=[vector],
            limit=LIMIT,
            filter=where,
            output_fields=["image"],
            search_params=parameters,
            consistency_level="Session",
        )
        return [int(hit["entity"]["image"][:-4]) for hit in hits]

    return {
        "lookalike": search_lookalike,
        "bare pymilvus": search_pymilvus,
        **_make_faiss_cases(catalogue, hnsw, selectivity),
    }


def _make_faiss_cases(catalogue: Catalogue, hnsw: Any, selectivity: float) -> dict[str, Search]:
    import faiss

    ids = np.flatnonzero(catalogue.chance < selectivity)
    bits = np.packbits(catalogue.chance < selectivity, bitorder="little")
    selector = None if selectivity == 1 else faiss.IDSelectorBitmap(len(catalogue.vectors), faiss.swig_ptr(bits))
    flat = faiss.IndexFlatIP(DIM)
    flat.add(catalogue.vectors if selectivity == 1 else catalogue.vectors[ids])

    def search_exact(vector: Vectors) -> list[int]:
        rows: list[int] = ids[flat.search(vector[None], min(LIMIT, len(ids)))[1][0]].tolist()
        return rows

    def search_hnsw(vector: Vectors, _bits: Any = bits) -> list[int]:
        parameters = faiss.SearchParametersHNSW(efSearch=SERVER_EF, sel=selector)  # type: ignore[attr-defined]
        rows = hnsw.search(vector[None], LIMIT, params=parameters)[1][0]
        return [int(row) for row in rows if row >= 0]

    return {"FAISS exact": search_exact, **({"FAISS HNSW": search_hnsw} if hnsw is not None else {})}


def _load_hnsw(catalogue: Catalogue, folder: Path) -> Any:
    import faiss

    file = folder / f"hnsw_{len(catalogue.vectors)}.faiss"
    if not file.exists():
        index = faiss.IndexHNSWFlat(DIM, 24, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 200
        index.add(catalogue.vectors)
        faiss.write_index(index, str(file))
    return faiss.read_index(str(file))


def _measure_throughput(search: Search, queries: Vectors) -> float:
    """Queries per second, with eight clients at once."""
    with ThreadPoolExecutor(_CLIENTS) as executor:
        started = time.perf_counter()

        def run_client(first: int) -> int:
            count = 0
            for vector in islice(cycle(queries), first, None):
                search(vector)
                count += 1
                if time.perf_counter() > started + _THROUGHPUT_SECONDS:
                    break
            return count

        return sum(executor.map(run_client, range(_CLIENTS))) / (time.perf_counter() - started)


def _print_figures(figures: Figures, output: Path | None) -> None:
    rate = f"{figures.qps:9.0f}/s" if figures.qps else " " * 11
    print(
        f"{figures.selectivity:7.1%} {figures.case:24} p50 {figures.p50:8.1f}  p99 {figures.p99:8.1f} ms  {rate}"
        f"  recall {figures.recall:.4f}",
        flush=True,
    )
    if output:
        with output.open("a") as lines:
            lines.write(json.dumps(asdict(figures)) + "\n")


if __name__ == "__main__":
    main()
