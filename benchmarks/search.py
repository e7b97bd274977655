"""Latency, throughput and recall of nearest rows: lookalike, bare pymilvus on the same collection, and bare FAISS.

    python benchmarks/search.py --rows 100000
    python benchmarks/search.py --rows 100000 --uri http://localhost:19530

The cases take turns, question by question. FAISS (pip install faiss-cpu) has the server's graph: M = 24,
efConstruction = 200, and the same ef; and, as a limit, an exact search. With --folder, what was filled and built stays.
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

sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.drawn import DIM, Catalogue, Vectors  # noqa: E402  the path comes first
from lookalike.schema.milvus.driver import MilvusClient  # noqa: E402
from lookalike.schema.milvus.store import Store  # noqa: E402
from lookalike.schema.milvus.store_reader import SERVER_EF  # noqa: E402

LIMIT = 10
KEPT = (1.0, 0.5, 0.05, 0.01, 0.001)
_CLIENTS = 8
_SECONDS = 3.0
_MOST = 30.0
"""Seconds that are spent on the questions of one filter."""

Ask = Callable[[Vectors], list[int]]
"""From a vector, shape (dim,), to the numbers of the nearest rows."""


@dataclass
class Figures:
    """What was measured of one case: milliseconds, questions a second of eight clients, recall of the nearest ten."""

    rows: int
    kept: float
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
@click.option("--json", "output", type=click.Path(path_type=Path), help="Add the figures to this file, a line each.")
def main(rows: int, queries: int, uri: str | None, folder: Path | None, output: Path | None) -> None:
    """Print a table for each filter."""
    catalogue = Catalogue(rows)
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as kept:
        Path(kept).mkdir(exist_ok=True)
        address = uri or f"{kept}/search_{rows}.db"
        with catalogue.fill(address) as store:
            while store.is_indexing():
                time.sleep(5)
            kind = "Milvus Lite" if store.is_exact else f"server, ef {SERVER_EF}"
            print(f"{rows} rows, {DIM}-d, {kind}, {os.cpu_count()} cores, Python {platform.python_version()}")
            graph = None if store.is_exact else _graph(catalogue, Path(kept))
            for share in KEPT:
                for figures in _measured(catalogue, store, graph, share, queries):
                    _show(figures, output)


def _measured(catalogue: Catalogue, store: Store, graph: Any, share: float, queries: int) -> list[Figures]:
    cases = _cases(catalogue, store, graph, share)
    inside = catalogue.chance < share
    took: dict[str, list[float]] = {name: [] for name in cases}
    found: dict[str, list[float]] = {name: [] for name in cases}
    until = time.perf_counter() + _MOST
    asked = catalogue.near(queries)
    for vector in asked:
        least = np.sort(catalogue.vectors[inside] @ vector)[-LIMIT:]
        for name, ask in cases.items():
            started = time.perf_counter()
            rows = ask(vector)
            took[name].append((time.perf_counter() - started) * 1_000)
            scores = catalogue.vectors[rows] @ vector
            found[name].append(float((scores >= least[0] - 1e-6).sum()) / len(least))
        if time.perf_counter() > until:
            break
    rates = {name: _rate(ask, asked) if share == 1 else None for name, ask in cases.items()}
    return [
        Figures(
            len(catalogue.vectors),
            share,
            f"{name}{'' if store.is_exact else ' (server)'}",
            float(np.percentile(took[name], 50)),
            float(np.percentile(took[name], 99)),
            rates[name],
            float(np.mean(found[name])),
        )
        for name in cases
    ]


def _cases(catalogue: Catalogue, store: Store, graph: Any, share: float) -> dict[str, Ask]:
    where = "" if share == 1 else f'metadata["chance"] < {share}'
    client = MilvusClient(store.uri)
    parameters = {} if store.is_exact else {"params": {"ef": SERVER_EF}}

    def ours(vector: Vectors) -> list[int]:
        return [int(str(hit["image"])[:-4]) for hit in store.search(vector, LIMIT, where=where, fields=["image"])]

    def bare(vector: Vectors) -> list[int]:
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

    return {"lookalike": ours, "bare pymilvus": bare, **_faiss(catalogue, graph, share)}


def _faiss(catalogue: Catalogue, graph: Any, share: float) -> dict[str, Ask]:
    import faiss

    ids = np.flatnonzero(catalogue.chance < share)
    bits = np.packbits(catalogue.chance < share, bitorder="little")
    chosen = None if share == 1 else faiss.IDSelectorBitmap(len(catalogue.vectors), faiss.swig_ptr(bits))
    flat = faiss.IndexFlatIP(DIM)
    flat.add(catalogue.vectors if share == 1 else catalogue.vectors[ids])

    def exact(vector: Vectors) -> list[int]:
        found: list[int] = ids[flat.search(vector[None], min(LIMIT, len(ids)))[1][0]].tolist()
        return found

    def by_graph(vector: Vectors, _bits: Any = bits) -> list[int]:
        parameters = faiss.SearchParametersHNSW(efSearch=SERVER_EF, sel=chosen)  # type: ignore[attr-defined]
        found = graph.search(vector[None], LIMIT, params=parameters)[1][0]
        return [int(row) for row in found if row >= 0]

    return {"FAISS exact": exact, **({"FAISS HNSW": by_graph} if graph is not None else {})}


def _graph(catalogue: Catalogue, folder: Path) -> Any:
    import faiss

    file = folder / f"hnsw_{len(catalogue.vectors)}.faiss"
    if not file.exists():
        graph = faiss.IndexHNSWFlat(DIM, 24, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = 200
        graph.add(catalogue.vectors)
        faiss.write_index(graph, str(file))
    return faiss.read_index(str(file))


def _rate(ask: Ask, asked: Vectors) -> float:
    """Questions a second, with eight clients at once."""
    with ThreadPoolExecutor(_CLIENTS) as pool:
        started = time.perf_counter()

        def answered(first: int) -> int:
            count = 0
            for vector in islice(cycle(asked), first, None):
                ask(vector)
                count += 1
                if time.perf_counter() > started + _SECONDS:
                    break
            return count

        return sum(pool.map(answered, range(_CLIENTS))) / (time.perf_counter() - started)


def _show(figures: Figures, output: Path | None) -> None:
    rate = f"{figures.qps:9.0f}/s" if figures.qps else " " * 11
    print(
        f"{figures.kept:7.1%} {figures.case:24} p50 {figures.p50:8.1f}  p99 {figures.p99:8.1f} ms  {rate}"
        f"  recall {figures.recall:.4f}",
        flush=True,
    )
    if output:
        with output.open("a") as lines:
            lines.write(json.dumps(asdict(figures)) + "\n")


if __name__ == "__main__":
    main()
