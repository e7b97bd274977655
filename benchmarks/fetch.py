"""Images from a web server that takes 50 ms for each response: requests an image, and images a second.

    python benchmarks/fetch.py [--images N] [--rounds N]

An ingest of so many new images, then one of the same, unchanged: by lookalike, and by what it did before, HEAD and GET
through fsspec, on as many threads as decode and on as many as wait now. The encoder is `pixels`, so that fetching is
what takes time. The cases take turns; the median of the rounds counts.
"""

import io
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import click
import numpy as np
from PIL import Image

# This folder's ingest.py would hide the package `ingest`.
sys.path[0] = str(Path(__file__).parents[1])

from lookalike.encode.engine import Engine, LazyEngine  # noqa: E402
from lookalike.encode.process_tuning import count_cores  # noqa: E402
from lookalike.encode.registry import load_encoder  # noqa: E402
from lookalike.ingest.job import ingest_images  # noqa: E402
from lookalike.ingest.pipeline.existing_rows import RowScope  # noqa: E402
from lookalike.ingest.pipeline.limits import PipelineLimits  # noqa: E402
from lookalike.ingest.pipeline.load import ReadChanged  # noqa: E402
from lookalike.ingest.pipeline.stages import PipelineContext  # noqa: E402
from lookalike.ingest.reports.report import Report  # noqa: E402
from lookalike.ingest.sources.files import image_reader  # noqa: E402
from lookalike.schema.milvus.store import Store  # noqa: E402
from lookalike.schema.product import FileState, ProductImage  # noqa: E402

_DELAY = 0.05
_SIDE = 256


class Way(NamedTuple):
    """A way of reading, and on how many threads."""

    name: str
    read: ReadChanged
    threads: int


class Figures(NamedTuple):
    """Of one run: images a second, and requests an image."""

    rate: float
    requests: float


@click.command()
@click.option("--images", default=400, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(images: int, rounds: int) -> None:
    """Print a table."""
    ways = [
        Way("lookalike", image_reader(allow_private=True).read_changed, PipelineLimits().fetches),
        Way("fsspec, HEAD and GET", by_fsspec, count_cores()),
        Way("fsspec, HEAD and GET, more threads", by_fsspec, PipelineLimits().fetches),
    ]
    found: dict[str, list[tuple[Figures, Figures]]] = {way.name: [] for way in ways}
    with _server() as (address, requests):
        for _ in range(rounds):
            for way in ways:
                found[way.name].append(_measured(way, address, requests, images))
    print(f"{images} images of {len(_jpeg(0)) / 1000:.0f} kB, {count_cores()} cores\n")
    print(f"{'':36} {'new: images/s':>14} {'requests':>9} {'unchanged: images/s':>20} {'requests':>9}")
    for name, runs in found.items():
        first, again = (Figures(*map(median, zip(*each, strict=True))) for each in zip(*runs, strict=True))
        print(f"{name:36} {first.rate:14.1f} {first.requests:9.2f} {again.rate:20.1f} {again.requests:9.2f}")


def by_fsspec(image: str, known: FileState | None) -> tuple[bytes, FileState] | None:
    """Read an image as lookalike did until there was encode/fetch: HEAD, and GET where that says something new."""
    import fsspec

    files: Any = fsspec.core.url_to_fs(image)[0]
    about = files.info(image)
    version = hash(about.get("ETag"))
    if known is not None and (known.size, known.mtime) == (about["size"], version):
        return None
    # Once to compare and once to read.
    if known is not None:
        about = files.info(image)
    content: bytes = files.cat_file(image)
    return content, FileState.of(content, version)


def _measured(way: Way, address: str, requests: "Synchronized[int]", images: int) -> tuple[Figures, Figures]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(str(Path(folder) / "web.db"), load_encoder("pixels").fingerprint)
        with store:
            return _run(way, store, address, requests, images), _run(way, store, address, requests, images)


def _run(way: Way, store: Store, address: str, requests: "Synchronized[int]", images: int) -> Figures:
    products = [ProductImage.named("web", str(n), "1", f"{address}/{n}.jpg", {}) for n in range(images)]
    engine = LazyEngine(lambda: Engine(load_encoder("pixels")))
    before, started = requests.value, time.perf_counter()
    report = Report()
    limits = PipelineLimits(workers=count_cores(), fetches=way.threads)
    ingest_images(products, RowScope("web"), store, report, PipelineContext(engine, limits, way.read))
    seconds = time.perf_counter() - started
    assert report.seen == images
    assert not report.rejected
    return Figures(images / seconds, (requests.value - before) / images)


@contextmanager
def _server() -> Iterator[tuple[str, "Synchronized[int]"]]:
    """A web server in a process of its own; gives its address, and how many requests it has had."""
    spawn = multiprocessing.get_context("spawn")
    requests, port = spawn.Value("i", 0), spawn.Value("i", 0)
    process = spawn.Process(target=_serve, args=(requests, port), daemon=True)
    process.start()
    while not port.value:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port.value}", requests
    process.terminate()
    process.join()


def _serve(requests: "Synchronized[int]", port: "Synchronized[int]") -> None:
    _Images.requests = requests
    with ThreadingHTTPServer(("127.0.0.1", 0), _Images) as server:
        port.value = server.server_port
        server.serve_forever()


class _Images(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # The head and a small body would otherwise wait for each other.
    wbufsize = -1
    disable_nagle_algorithm = True
    requests: "Synchronized[int]"

    def do_GET(self) -> None:
        self._answer(_jpeg(int(self.path.strip("/").removesuffix(".jpg"))))

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object, **__: object) -> None:
        """Say nothing."""

    def _answer(self, content: bytes) -> None:
        with self.requests.get_lock():
            self.requests.value += 1
        time.sleep(_DELAY)
        etag = f'"{self.path}"'
        unchanged = self.headers.get("If-None-Match") == etag
        self.send_response(304 if unchanged else 200)
        self.send_header("ETag", etag)
        if not unchanged:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET" and not unchanged:
            self.wfile.write(content)


@cache
def _drawn() -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (_SIDE, _SIDE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "JPEG", quality=80)
    return file.getvalue()


def _jpeg(number: int) -> bytes:
    """An image: each another one by bytes after its end."""
    return _drawn() + number.to_bytes(4)


if __name__ == "__main__":
    main()
