"""Requests per second and latency of `lookalike serve`, beside the network alone and Milvus alone.

    python benchmarks/serve.py [--photos FOLDER --layout TEMPLATE] [--uri URI] [--encoder NAME] [--clients 1,8,32]

Service, load, network and Milvus have a process each. The network and Milvus are measured while the service is not
there, before and after the load; what is printed of them is the mean of both. Without --photos the images are drawn.
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
from urllib.parse import quote, urlsplit

import click

ROOT = Path(__file__).parents[1]
# This folder's ingest.py would hide the package `ingest`.
sys.path[0] = str(ROOT)

LIMIT = 10
_BOUNDARY = "a-boundary-that-no-image-has"
_FORM = f"multipart/form-data; boundary={_BOUNDARY}"
_MOST_IMAGES = 512

Figures = dict[str, float]


@click.command()
@click.option("--photos", type=click.Path(path_type=Path, exists=True), help="A catalogue; without it one is drawn.")
@click.option("--layout", default="{category}/{product_id}/{image}", show_default=True)
@click.option("--uri", help="A Milvus server; without it Milvus Lite in a temporary folder.")
@click.option("--encoder", default="efficientnet-lite0", show_default=True)
@click.option("--clients", default="1,8,32", show_default=True, help="How many ask at the same time.")
@click.option("--seconds", default=10.0, show_default=True, help="For each line of the table.")
@click.option("--part", hidden=True, help="Measure this in this process: network, search, or load.")
@click.option("--request", "kind", hidden=True)
@click.option("--address", hidden=True)
@click.option("--collection", hidden=True)
def main(photos: Path | None, layout: str, uri: str | None, part: str | None, **options: Any) -> None:
    """Print a line for each number of clients, then what the service adds to its parts."""
    if part is not None:
        assert photos
        print(json.dumps(_PARTS[part](photos, uri or "", options)))
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        if photos is None:
            subprocess.check_output([sys.executable, "-m", "lookalike", "sample", scratch], cwd=ROOT)
        options["collection"] = f"bench_serve_{int(time.time())}"
        shared = {**options, "photos": photos or Path(scratch) / "photos", "uri": uri or f"{scratch}/bench.db"}
        _fill(shared, layout)
        try:
            _compare(shared, Path(scratch))
        finally:
            _drop(shared)


def _compare(shared: dict[str, Any], scratch: Path) -> None:
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"load of the machine before it begins: {os.getloadavg()[0]:.1f}", flush=True)
    alone = [{**_measured("network", shared), **_measured("search", shared)}]
    with _service(shared, scratch) as address:
        points = _points({**shared, "address": address})
    alone.append({**_measured("network", shared), **_measured("search", shared)})
    both = {name: statistics.mean(figures[name] for figures in alone) for name in alone[0]}
    fewest, most = min(n for _, n in points), max(n for _, n in points)
    network = both.pop("network")
    ratio = points["image", most]["rate"] / network
    print(f"\nnetwork alone {network:.1f} images/s; by image with {most} clients {ratio:.2f} of it (goal 0.8)")
    both[f"over HTTP, clients: {fewest}"] = points["product", fewest]["p50"]
    print(f"\none after the other, {LIMIT} products: median ms, and times the bare search (goal 1.3)")
    for name, milliseconds in both.items():
        print(f"  {name:45} {milliseconds:7.2f} {milliseconds / both['bare search']:6.2f}")


def _points(shared: dict[str, Any]) -> dict[tuple[str, int], Figures]:
    """Load by image and by product id, with each number of clients."""
    print(f"\n{'':12} clients   requests/s    p50 ms    p99 ms   failed", flush=True)
    points: dict[tuple[str, int], Figures] = {}
    for kind in ("image", "product"):
        for clients in map(int, shared["clients"].split(",")):
            found = _measured("load", {**shared, "request": kind, "clients": str(clients)})
            points[kind, clients] = found
            shown = f"{found['rate']:12.1f} {found['p50']:9.1f} {found['p99']:9.1f} {found['failed']:8.0f}"
            print(f"by {kind:9} {clients:7} {shown}", flush=True)
    return points


def _measured(part: str, options: dict[str, Any]) -> Figures:
    """What a part says that runs in a process of its own."""
    told = itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in options.items() if value)
    command = [sys.executable, __file__, "--part", part, *told]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _fill(shared: dict[str, Any], layout: str) -> None:
    command = [sys.executable, "-m", "lookalike", "ingest", str(shared["photos"]), "--layout", layout, "--no-progress"]
    for name in ("uri", "encoder", "collection"):
        command += [f"--{name}", shared[name]]
    told = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout
    print(f"{told.splitlines()[0]}; {shared['encoder']}, {'Milvus Lite' if '://' not in shared['uri'] else 'a server'}")


def _drop(shared: dict[str, Any]) -> None:
    from pymilvus import MilvusClient

    client = MilvusClient(shared["uri"])
    version = client.describe_collection(shared["collection"])["collection_name"]
    client.drop_alias(shared["collection"])
    client.drop_collection(version)


@contextmanager
def _service(shared: dict[str, Any], scratch: Path) -> Iterator[str]:
    """Run `lookalike serve`; gives its address."""
    command = [sys.executable, "-m", "lookalike", "serve", "--port", "0", "--uploads", str(scratch / "uploads")]
    command += ["--uri", shared["uri"], "--collection", shared["collection"]]
    log = scratch / "serve.log"
    with log.open("w") as opened:
        service = subprocess.Popen(command, cwd=ROOT, stderr=opened)
    try:
        while (found := re.search(r" at (http://\S+),", log.read_text())) is None:
            assert service.poll() is None, log.read_text()
            time.sleep(0.1)
        yield found[1]
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait()


def _network(photos: Path, _uri: str, options: dict[str, Any]) -> Figures:
    """The network on batches that are ready, at its best setting: the limit of every service."""
    from lookalike.encode.process_tuning import keep_freed_memory

    keep_freed_memory()
    import numpy as np

    from lookalike.encode.decode import decode
    from lookalike.encode.load_engine import load_engine
    from lookalike.encode.options import EngineConfig
    from lookalike.ingest.pipeline.concurrency import in_parallel

    engine = load_engine(options["encoder"], EngineConfig())
    pixels = [engine.encoder.prepare(decode(file.read_bytes())) for file in _images(photos)]
    size, lanes = engine.batch_size, engine.parallel_batches
    # Whole batches only, the last one filled up from the front.
    batches = [np.stack((pixels + pixels[:size])[start : start + size]) for start in range(0, len(pixels), size)]

    def encoded(seconds: float) -> float:
        started = time.perf_counter()
        wanted = itertools.takewhile(lambda _: time.perf_counter() < started + seconds, itertools.cycle(batches))
        done = sum(map(len, in_parallel(engine.encoder.encode_images, wanted, workers=lanes, ahead=lanes)))
        return done / (time.perf_counter() - started)

    encoded(1)
    return {"network": encoded(options["seconds"])}


def _search(_photos: Path, uri: str, options: dict[str, Any]) -> Figures:
    """Milvus as its own client asks it, and Finder, in turn for each product: median milliseconds."""
    import numpy as np
    from pymilvus import MilvusClient

    from lookalike.schema.milvus.store import Store
    from lookalike.search.finder import Finder
    from lookalike.search.query import Query
    from lookalike.search.ranking import mean

    client = MilvusClient(uri)
    with Store.open(uri, collection=options["collection"]) as store:
        finder = Finder(store, lambda: None)  # type: ignore[arg-type,return-value]  # no question has an image
        images: dict[str, list[Any]] = {}
        for row in store.rows(fields=["product_id", "embedding"]):
            images.setdefault(row["product_id"], []).append(np.asarray(row["embedding"], dtype=np.float32))
        vectors = {product: mean(embeddings) for product, embeddings in images.items()}

        def bare(product: str, limit: int, fields: Sequence[str]) -> None:
            client.search(
                options["collection"],
                data=[vectors[product]],
                limit=limit,
                output_fields=list(fields),
                search_params={} if store.exact else {"params": {"ef": 1_024}},
                consistency_level="Session",
            )

        several = ("image_id", "product_id", "image", "metadata")
        cases: dict[str, Callable[[str], object]] = {
            "bare search": lambda product: bare(product, LIMIT, ["product_id"]),
            "bare search, as wide as Finder's first": lambda product: bare(product, 4 * LIMIT, several),
            "bare query for the product's vectors": lambda product: client.query(
                options["collection"], f'product_id == "{product}"', ["embedding"], consistency_level="Session"
            ),
            "Finder.find in process": lambda product: finder.find(Query(product_id=product, limit=LIMIT)),
        }
        return _medians(cases, list(vectors), options["seconds"])


def _medians(cases: dict[str, Callable[[str], object]], products: Sequence[str], seconds: float) -> Figures:
    took: dict[str, list[float]] = {name: [] for name in cases}
    until = time.perf_counter() + seconds
    for product in itertools.cycle(products):
        for name, run in cases.items():
            started = time.perf_counter()
            run(product)
            took[name].append((time.perf_counter() - started) * 1_000)
        if time.perf_counter() > until:
            break
    return {name: statistics.median(measured[len(measured) // 10 :]) for name, measured in took.items()}


def _load(photos: Path, _uri: str, options: dict[str, Any]) -> Figures:
    """Many clients, each of which asks again as soon as it has its answer; the first tenth of the time is not counted.

    Requests are bytes made beforehand, and answers are not parsed: the machine belongs to the service.
    """
    requests = (_uploads if options["kind"] == "image" else _questions)(photos, options["address"])
    return asyncio.run(_asked(options["address"], requests, int(options["clients"]), options["seconds"]))


async def _asked(address: str, requests: Sequence[bytes], clients: int, seconds: float) -> Figures:
    took: list[float] = []
    statuses: list[int] = []
    shared = itertools.cycle(requests)
    begin = time.perf_counter() + seconds / 10
    end = begin + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection(urlsplit(address).hostname, urlsplit(address).port)
        while (started := time.perf_counter()) < end:
            writer.write(next(shared))
            status = await _answer(reader)
            if begin <= (now := time.perf_counter()) < end:
                took.append((now - started) * 1_000)
                statuses.append(status)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    cuts = statistics.quantiles(took, n=100)
    failed = sum(status != 200 for status in statuses)
    return {"rate": (len(took) - failed) / seconds, "p50": cuts[49], "p99": cuts[98], "failed": failed}


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    await reader.readexactly(int(length[1]) if length else 0)
    return int(head.split(None, 2)[1])


def _uploads(photos: Path, address: str) -> list[bytes]:
    before = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="upload"\r\n\r\n'.encode()
    after = f"\r\n--{_BOUNDARY}--\r\n".encode()
    bodies = [before + file.read_bytes() + after for file in _images(photos)]
    return [
        _head(f"POST /search HTTP/1.1\r\nContent-Type: {_FORM}\r\nContent-Length: {len(body)}", address) + body
        for body in bodies
    ]


def _questions(photos: Path, address: str) -> list[bytes]:
    """By the products that the service itself tells for some images: what a layout makes of paths is its business."""
    from lookalike.serve.client import Client

    with Client(address) as client:
        products = {hit.product_id for file in _images(photos)[::16] for hit in client.search(image=file).hits}
    return [
        _head(f"GET /products/{quote(product, safe='')}/similar?limit={LIMIT} HTTP/1.1", address)
        for product in sorted(products)
    ]


def _head(lines: str, address: str) -> bytes:
    return f"{lines}\r\nHost: {urlsplit(address).netloc}\r\n\r\n".encode()


def _images(photos: Path) -> list[Path]:
    """Some of a catalogue's JPEGs, from all over it."""
    files = sorted(photos.rglob("*.jpg"))
    return files[:: max(1, len(files) // _MOST_IMAGES)][:_MOST_IMAGES]


_PARTS = {"network": _network, "search": _search, "load": _load}


if __name__ == "__main__":
    main()
