"""Requests per second and latency of `lookalike serve`, compared with the encoder alone and Milvus alone.

    python benchmarks/serve.py [--photos FOLDER --layout TEMPLATE] [--uri URI] [--encoder NAME] [--clients 1,8,32]

Service, load generator, encoder and Milvus each run in a separate process. The encoder and Milvus are measured before
and after the load, while the service is down; prints the mean of both. Without --photos the images are synthetic.
"""

import asyncio
import itertools
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[1]
# Import from this checkout; this folder itself holds an `ingest.py` and a `search.py`.
sys.path[0] = str(ROOT)

from benchmarks.load import LIMIT, Figures, choose_images, image_requests, product_requests, send_requests  # noqa: E402


@click.command()
@click.option("--photos", type=click.Path(path_type=Path, exists=True), help="A catalogue.  [default: a synthetic one]")
@click.option("--layout", default="{category}/{product_id}/{image}", show_default=True)
@click.option("--uri", help="A Milvus server.  [default: Milvus Lite in a temporary folder]")
@click.option("--encoder", default="efficientnet-lite0", show_default=True)
@click.option("--clients", default="1,8,32", show_default=True, help="Numbers of concurrent clients.")
@click.option("--seconds", default=10.0, show_default=True, help="Duration of each line of the table.")
@click.option("--part", hidden=True, help="Measure this in this process: encoder, search or load.")
@click.option("--request", "kind", hidden=True)
@click.option("--address", hidden=True)
@click.option("--collection", hidden=True)
def main(photos: Path | None, layout: str, uri: str | None, part: str | None, **options: Any) -> None:
    """Print a line for each number of clients, then compare the service with its parts."""
    if part is not None:
        assert photos
        print(json.dumps(_PARTS[part](photos, uri or "", options)))
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        if photos is None:
            subprocess.check_output([sys.executable, "-m", "lookalike", "sample", scratch], cwd=ROOT)
        options["collection"] = f"bench_serve_{int(time.time())}"
        shared = {**options, "photos": photos or Path(scratch) / "photos", "uri": uri or f"{scratch}/bench.db"}
        _run_ingest(shared, layout)
        try:
            _compare(shared, Path(scratch))
        finally:
            _drop_collection(shared)


def _compare(shared: dict[str, Any], scratch: Path) -> None:
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"load average of the machine at the start: {os.getloadavg()[0]:.1f}", flush=True)
    alone = [{**_measure_part("encoder", shared), **_measure_part("search", shared)}]
    with _run_service(shared, scratch) as address:
        points = _measure_load({**shared, "address": address})
    alone.append({**_measure_part("encoder", shared), **_measure_part("search", shared)})
    means = {name: statistics.mean(figures[name] for figures in alone) for name in alone[0]}
    fewest, highest = min(n for _, n in points), max(n for _, n in points)
    encoder = means.pop("encoder")
    ratio = points["image", highest]["rate"] / encoder
    print(f"\nencoder alone {encoder:.1f} images/s; by image with {highest} clients {ratio:.2f} of that (goal 0.8)")
    means[f"over HTTP, clients: {fewest}"] = points["product", fewest]["p50"]
    print(f"\none request at a time, {LIMIT} products: median ms, and ratio to the bare search (goal 1.3)")
    for name, milliseconds in means.items():
        print(f"  {name:45} {milliseconds:7.2f} {milliseconds / means['bare search']:6.2f}")


def _measure_load(shared: dict[str, Any]) -> dict[tuple[str, int], Figures]:
    """Measure searches by image and by product id, with each number of clients."""
    print(f"\n{'':12} clients   requests/s    p50 ms    p99 ms   failed", flush=True)
    points: dict[tuple[str, int], Figures] = {}
    for kind in ("image", "product"):
        for clients in map(int, shared["clients"].split(",")):
            figures = _measure_part("load", {**shared, "request": kind, "clients": str(clients)})
            points[kind, clients] = figures
            columns = f"{figures['rate']:12.1f} {figures['p50']:9.1f} {figures['p99']:9.1f} {figures['failed']:8.0f}"
            print(f"by {kind:9} {clients:7} {columns}", flush=True)
    return points


def _measure_part(part: str, options: dict[str, Any]) -> Figures:
    """Measure a part in a separate process."""
    arguments = itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in options.items() if value)
    command = [sys.executable, __file__, "--part", part, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _run_ingest(shared: dict[str, Any], layout: str) -> None:
    command = [sys.executable, "-m", "lookalike", "ingest", str(shared["photos"]), "--layout", layout, "--no-progress"]
    for name in ("uri", "encoder", "collection"):
        command += [f"--{name}", shared[name]]
    output = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout
    milvus = "a server" if "://" in shared["uri"] else "Milvus Lite"
    print(f"{output.splitlines()[0]}; {shared['encoder']}, {milvus}")


def _drop_collection(shared: dict[str, Any]) -> None:
    from pymilvus import MilvusClient

    client = MilvusClient(shared["uri"])
    version = client.describe_collection(shared["collection"])["collection_name"]
    client.drop_alias(shared["collection"])
    client.drop_collection(version)


@contextmanager
def _run_service(shared: dict[str, Any], scratch: Path) -> Iterator[str]:
    """Run `lookalike serve`; yield its address."""
    command = [sys.executable, "-m", "lookalike", "serve", "--port", "0", "--uploads", str(scratch / "uploads")]
    command += ["--uri", shared["uri"], "--collection", shared["collection"]]
    log = scratch / "serve.log"
    with log.open("w") as stderr:
        service = subprocess.Popen(command, cwd=ROOT, stderr=stderr)
    try:
        while (match := re.search(r" at (http://\S+),", log.read_text())) is None:
            assert service.poll() is None, log.read_text()
            time.sleep(0.1)
        yield match[1]
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait()


def _measure_encoder(photos: Path, _uri: str, options: dict[str, Any]) -> Figures:
    """Images per second of the encoder on prepared batches: the upper limit of any service."""
    from lookalike.encode.process_tuning import keep_freed_memory

    keep_freed_memory()
    import numpy as np

    from lookalike.encode.decode import decode
    from lookalike.encode.load_engine import load_engine
    from lookalike.encode.options import EngineConfig
    from lookalike.ingest.pipeline.concurrency import in_parallel

    engine = load_engine(options["encoder"], EngineConfig())
    pixels = [engine.encoder.prepare(decode(file.read_bytes())) for file in choose_images(photos)]
    size, parallel = engine.batch_size, engine.parallel_batches
    # Full batches only: the last one is filled from the start of the list.
    batches = [np.stack((pixels + pixels[:size])[start : start + size]) for start in range(0, len(pixels), size)]

    def run(seconds: float) -> float:
        started = time.perf_counter()
        work = itertools.takewhile(lambda _: time.perf_counter() < started + seconds, itertools.cycle(batches))
        done = sum(map(len, in_parallel(engine.encoder.encode_images, work, workers=parallel, ahead=parallel)))
        return done / (time.perf_counter() - started)

    run(1)
    return {"encoder": run(options["seconds"])}


def _measure_search(_photos: Path, uri: str, options: dict[str, Any]) -> Figures:
    """Median milliseconds of plain pymilvus and of Finder, which alternate product by product."""
    import numpy as np
    from pymilvus import MilvusClient

    from lookalike.schema.milvus.store import Store
    from lookalike.search.finder import Finder
    from lookalike.search.query import Query
    from lookalike.search.resolved_query import mean_vector

    client = MilvusClient(uri)
    with Store.open(uri, collection=options["collection"]) as store:
        finder = Finder(store, lambda: None)  # type: ignore[arg-type,return-value]  # no query has an image
        images: dict[str, list[Any]] = {}
        for row in store.rows(fields=["product_id", "embedding"]):
            images.setdefault(row["product_id"], []).append(np.asarray(row["embedding"], dtype=np.float32))
        vectors = {product: mean_vector(embeddings) for product, embeddings in images.items()}

        def search_pymilvus(product: str, limit: int, fields: Sequence[str]) -> None:
            client.search(
                options["collection"],
                data=[vectors[product]],
                limit=limit,
                output_fields=list(fields),
                search_params={} if store.is_exact else {"params": {"ef": 1_024}},
                consistency_level="Session",
            )

        wide_fields = ("image_id", "product_id", "image", "metadata")
        cases: dict[str, Callable[[str], object]] = {
            "bare search": lambda product: search_pymilvus(product, LIMIT, ["product_id"]),
            "bare search, as wide as Finder's first": lambda product: search_pymilvus(product, 4 * LIMIT, wide_fields),
            "bare query for the product's vectors": lambda product: client.query(
                options["collection"], f'product_id == "{product}"', ["embedding"], consistency_level="Session"
            ),
            "Finder.find in process": lambda product: finder.find(Query(product_id=product, limit=LIMIT)),
        }
        return _measure_medians(cases, list(vectors), options["seconds"])


def _measure_medians(cases: dict[str, Callable[[str], object]], products: Sequence[str], seconds: float) -> Figures:
    milliseconds: dict[str, list[float]] = {name: [] for name in cases}
    deadline = time.perf_counter() + seconds
    for product in itertools.cycle(products):
        for name, run in cases.items():
            started = time.perf_counter()
            run(product)
            milliseconds[name].append((time.perf_counter() - started) * 1_000)
        if time.perf_counter() > deadline:
            break
    return {name: statistics.median(measured[len(measured) // 10 :]) for name, measured in milliseconds.items()}


def _generate_load(photos: Path, _uri: str, options: dict[str, Any]) -> Figures:
    """Requests per second and latency, with one number of clients."""
    requests = (image_requests if options["kind"] == "image" else product_requests)(photos, options["address"])
    return asyncio.run(send_requests(options["address"], requests, int(options["clients"]), options["seconds"]))


_PARTS = {"encoder": _measure_encoder, "search": _measure_search, "load": _generate_load}


if __name__ == "__main__":
    main()
