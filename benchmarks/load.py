"""A load generator for `lookalike serve`: many clients on keep-alive connections, in one event loop."""

import asyncio
import itertools
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

LIMIT = 10
_BOUNDARY = "a-boundary-that-no-image-has"
_FORM = f"multipart/form-data; boundary={_BOUNDARY}"
_MAX_IMAGES = 512

Figures = dict[str, float]


async def send_requests(address: str, requests: Sequence[bytes], clients: int, seconds: float) -> Figures:
    """Run clients that each send a request when the last response has arrived; the first tenth of the time is warm-up.

    Requests are encoded beforehand, and responses are not parsed, to leave the CPU to the service.
    """
    latencies: list[float] = []
    statuses: list[int] = []
    shared = itertools.cycle(requests)
    begin = time.perf_counter() + seconds / 10
    end = begin + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection(urlsplit(address).hostname, urlsplit(address).port)
        while (started := time.perf_counter()) < end:
            writer.write(next(shared))
            status = await _read_status(reader)
            if begin <= (now := time.perf_counter()) < end:
                latencies.append((now - started) * 1_000)
                statuses.append(status)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    cuts = statistics.quantiles(latencies, n=100)
    failed = sum(status != 200 for status in statuses)
    return {"rate": (len(latencies) - failed) / seconds, "p50": cuts[49], "p99": cuts[98], "failed": failed}


async def _read_status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    await reader.readexactly(int(length[1]) if length else 0)
    return int(head.split(None, 2)[1])


def image_requests(photos: Path, address: str) -> list[bytes]:
    """Encode a search for each of some images."""
    before = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="upload"\r\n\r\n'.encode()
    after = f"\r\n--{_BOUNDARY}--\r\n".encode()
    bodies = [before + file.read_bytes() + after for file in choose_images(photos)]
    return [
        _head(f"POST /search HTTP/1.1\r\nContent-Type: {_FORM}\r\nContent-Length: {len(body)}", address) + body
        for body in bodies
    ]


def product_requests(photos: Path, address: str) -> list[bytes]:
    """Encode a search for each of some products.

    Their ids come from searches with images, because only the layout knows the ids of all products.
    """
    from lookalike.serve.client import Client

    with Client(address) as client:
        products = {hit.product_id for file in choose_images(photos)[::16] for hit in client.search(image=file).hits}
    return [
        _head(f"GET /products/{quote(product, safe='')}/similar?limit={LIMIT} HTTP/1.1", address)
        for product in sorted(products)
    ]


def _head(lines: str, address: str) -> bytes:
    return f"{lines}\r\nHost: {urlsplit(address).netloc}\r\n\r\n".encode()


def choose_images(photos: Path) -> list[Path]:
    """Up to 512 JPEGs, spread evenly over the catalogue."""
    files = sorted(photos.rglob("*.jpg"))
    return files[:: max(1, len(files) // _MAX_IMAGES)][:_MAX_IMAGES]
