"""Images from a web server that takes 50 ms for each response: requests per image, and images per second.

    python benchmarks/fetch.py [--images N] [--rounds N]

Ingests new images, then the same images unchanged: by lookalike, and by the way of earlier versions, HEAD and GET with
fsspec, on one thread per core and on as many threads as lookalike uses now. The encoder is `pixels`, so that fetching
takes most of the time. The cases alternate; prints the median of the rounds.
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

# Import from this checkout; this folder itself holds an `ingest.py` and a `search.py`.
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

_DELAY_SECONDS = 0.05
_EDGE = 256


class Case(NamedTuple):
    """How to read images, and on how many threads."""

    name: str
    read: ReadChanged
    threads: int


class Figures(NamedTuple):
    """Of one run: images per second, and requests per image."""

    rate: float
    requests: float


@click.command()
@click.option("--images", default=400, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(images: int, rounds: int) -> None:
    """Print a table of the cases."""
    cases = [
        Case("lookalike", image_reader(allow_private=True).read_changed, PipelineLimits().fetches),
        Case("fsspec, HEAD and GET", read_by_fsspec, count_cores()),
        Case("fsspec, HEAD and GET, more threads", read_by_fsspec, PipelineLimits().fetches),
    ]
    results: dict[str, list[tuple[Figures, Figures]]] = {case.name: [] for case in cases}
    with _run_server() as (address, requests):
        for _ in range(rounds):
            for case in cases:
                results[case.name].append(_measure(case, address, requests, images))
    print(f"{images} images of {len(_jpeg(0)) / 1000:.0f} kB, {count_cores()} cores\n")
    print(f"{'':36} {'new: images/s':>14} {'requests':>9} {'unchanged: images/s':>20} {'requests':>9}")
    for name, runs in results.items():
        new, unchanged = (Figures(*map(median, zip(*each, strict=True))) for each in zip(*runs, strict=True))
        print(f"{name:36} {new.rate:14.1f} {new.requests:9.2f} {unchanged.rate:20.1f} {unchanged.requests:9.2f}")


def read_by_fsspec(image: str, known: FileState | None) -> tuple[bytes, FileState] | None:
    """Read an image as lookalike did before encode/fetch: HEAD, and GET if the image has changed."""
    import fsspec

    files: Any = fsspec.core.url_to_fs(image)[0]
    info = files.info(image)
    version = hash(info.get("ETag"))
    if known is not None and (known.size, known.mtime) == (info["size"], version):
        return None
    # The earlier versions asked twice: once to compare and once to read.
    if known is not None:
        info = files.info(image)
    content: bytes = files.cat_file(image)
    return content, FileState.of(content, version)


def _measure(case: Case, address: str, requests: "Synchronized[int]", images: int) -> tuple[Figures, Figures]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(str(Path(folder) / "web.db"), load_encoder("pixels").fingerprint)
        with store:
            return _ingest(case, store, address, requests, images), _ingest(case, store, address, requests, images)


def _ingest(case: Case, store: Store, address: str, requests: "Synchronized[int]", images: int) -> Figures:
    products = [ProductImage.named("web", str(n), "1", f"{address}/{n}.jpg", {}) for n in range(images)]
    engine = LazyEngine(lambda: Engine(load_encoder("pixels")))
    before, started = requests.value, time.perf_counter()
    report = Report()
    limits = PipelineLimits(workers=count_cores(), fetches=case.threads)
    ingest_images(products, RowScope("web"), store, report, PipelineContext(engine, limits, case.read))
    seconds = time.perf_counter() - started
    assert report.seen == images
    assert not report.rejected
    return Figures(images / seconds, (requests.value - before) / images)


@contextmanager
def _run_server() -> Iterator[tuple[str, "Synchronized[int]"]]:
    """Run a web server in a separate process; yield its address and its number of requests."""
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
    _ImageHandler.requests = requests
    with ThreadingHTTPServer(("127.0.0.1", 0), _ImageHandler) as server:
        port.value = server.server_port
        server.serve_forever()


class _ImageHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Otherwise Nagle's algorithm delays the body until the client has acknowledged the headers.
    wbufsize = -1
    disable_nagle_algorithm = True
    requests: "Synchronized[int]"

    def do_GET(self) -> None:
        self._respond(_jpeg(int(self.path.strip("/").removesuffix(".jpg"))))

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object, **__: object) -> None:
        """Log nothing."""

    def _respond(self, content: bytes) -> None:
        with self.requests.get_lock():
            self.requests.value += 1
        time.sleep(_DELAY_SECONDS)
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
def _noise_jpeg() -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (_EDGE, _EDGE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "JPEG", quality=80)
    return file.getvalue()


def _jpeg(number: int) -> bytes:
    """A JPEG; appended bytes make each number a different file."""
    return _noise_jpeg() + number.to_bytes(4)


if __name__ == "__main__":
    main()
