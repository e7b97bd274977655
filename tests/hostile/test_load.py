"""A store that is killed and comes back under a service, and thousands of mixed requests: what stays, and how much."""

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from command import lookalike, process_environment
from conftest import HAS_SERVER, bring
from hostile.attacked import JSON, child_service, draw_products
from hostile.conftest import Outcome
from milvus_server import SHORT_INTERVALS
from serving import client, draw_noise, listening, service_for, until

from lookalike.encode.models.pixels import PixelEncoder
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import Layout
from lookalike.schema.milvus.store import Store
from lookalike.stack.milvus import find_free_port

AREA = "Service: load and failures"
REQUESTS, WARM_UP = 5_000, 1_000
MEGABYTE = 2**20


class Milvus:
    """A Milvus server that can be killed, and started again at the same address with the same data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, self._health_port = find_free_port(), find_free_port()
        self.address = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, without waiting for it."""
        command = [sys.executable, "-m", "lookalike.stack.milvus", str(self._folder / "data")]
        with (self._folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, str(self._port), str(self._health_port)],
                cwd=self._folder,
                env={**process_environment(), **SHORT_INTERVALS},
                stdout=log,
                stderr=log,
            )

    def is_healthy(self) -> bool:
        """Whether the server says that it is ready."""
        try:
            url = f"http://127.0.0.1:{self._health_port}/healthz"
            return httpx2.get(url, trust_env=False, timeout=5).text == "OK"
        except httpx2.TransportError:
            return False

    def kill(self) -> None:
        """End the server with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def killable_milvus(folder: Path) -> Iterator[Milvus]:
    milvus = Milvus(folder)
    milvus.start()
    try:
        until(milvus.is_healthy, 120)
        yield milvus
    finally:
        milvus.kill()


@pytest.mark.skipif(not HAS_SERVER, reason="no Milvus server: the wheel milvus==2.3.5 does not exist for this machine")
def test_the_service_recovers_when_a_killed_store_comes_back(tmp_path: Path, outcome: Outcome) -> None:
    draw_products(tmp_path / "photos")
    encoder = PixelEncoder()
    with (
        killable_milvus(tmp_path) as milvus,
        Store.create(milvus.address, encoder.fingerprint, collection="killed") as store,
    ):
        bring(FolderSource(tmp_path / "photos", Layout("{product_id}/{image}")).images(), encoder, store)
        with listening(service_for(store, encoder, tmp_path / "uploads")) as address, client(address) as http:
            before = list_hits(http)
            assert len(before) == 2
            milvus.kill()
            slowest = max(time_503(http) for _ in range(5))
            assert slowest < 15
            assert http.get("/ready").status_code == 503
            assert http.get("/health").status_code == 200
            assert http.get("/", headers={"accept": "text/html"}).status_code == 503
            with ThreadPoolExecutor(8) as threads:
                assert max(threads.map(lambda _: time_503(http), range(8))) < 30
            milvus.start()
            until(milvus.is_healthy, 120)
            started = time.monotonic()
            until(lambda: http.post("/search", json={"product_id": "red"}).status_code == 200, 120)
            recovered = time.monotonic() - started
            until(lambda: http.get("/ready").status_code == 200)
            assert list_hits(http) == before, "no acknowledged row is lost"
    outcome(
        AREA,
        "the Milvus server killed (SIGKILL) and started again",
        f"503 with Retry-After, at the latest after {slowest:.0f} s; serves again, {recovered:.0f} s after Milvus does",
    )


def list_hits(http: httpx2.Client) -> list[str]:
    response = http.post("/search", json={"product_id": "red"})
    assert response.status_code == 200, response.text
    return [hit["product_id"] for hit in response.json()["hits"]]


def time_503(http: httpx2.Client) -> float:
    """Search while Milvus is away; return how long the refusal took."""
    started = time.monotonic()
    response = http.post("/search", json={"product_id": "red"})
    assert response.status_code in (503, 504), response.text
    assert response.status_code == 504 or response.headers["retry-after"]
    assert "127.0.0.1" not in response.text
    return time.monotonic() - started


IMAGES = [draw_noise((64, 64), seed=seed) for seed in range(50)]
LARGE = draw_noise((1_000, 1_000), "JPEG")


def upload(number: int) -> dict[str, Any]:
    return {"files": {"image": IMAGES[number % len(IMAGES)]}}


MIX: tuple[Callable[[httpx2.Client, int], httpx2.Response], ...] = (
    lambda http, _: http.post("/search", json={"product_id": "red"}),
    lambda http, number: http.post("/search", **upload(number)),
    lambda http, _: http.post("/search", files={"image": LARGE}),
    lambda http, _: http.get("/products/red/similar?where=product_id != blue"),
    lambda http, number: http.get(f"/products/nothing-{number}"),
    lambda http, number: http.post("/search", content=b"{" * (number % 1_000), headers=JSON),
    lambda http, number: http.post("/search", content=bytes(number % 10_000), headers={"content-type": f"x/{number}"}),
    lambda http, number: http.get(f"/products/red?unknown-{number}=1"),
    lambda http, number: http.get(f"/nothing/{number}"),
    lambda http, number: http.get(f"/?product=red&x{number}=1"),
    lambda http, number: http.get(f"/?product=nothing-{number}&f.a{number}=b"),
    lambda http, number: http.post("/", files={"upload": IMAGES[number % len(IMAGES)]}),
    lambda http, number: http.post(
        "/search/batch", json={"queries": [{"product_id": "red"}, {"product_id": str(number)}]}
    ),
    lambda http, number: http.put(f"/products/p{number // len(MIX) % 20}", **upload(number)),
    lambda http, number: http.delete(f"/products/p{number // len(MIX) % 20}"),
    lambda http, number: http.put(f"/products/p{number // len(MIX) % 20}", json={"metadata": {"a": float(number)}}),
    lambda http, _: http.head("/products/red"),
    lambda http, number: http.request(f"M{number}", "/search"),
    lambda http, _: http.get("/metrics"),
    lambda http, _: http.get("/ready"),
    lambda http, number: http.post("/search", json={"vector": [float(number)] * 5}),
    lambda http, number: http.post("/search", json={"product_id": "red", "where": {f"c{number}": "x" * 500}}),
)


def test_memory_after_5000_mixed_requests(tmp_path: Path, outcome: Outcome) -> None:
    draw_products(tmp_path / "photos")
    options = ("--layout", "{product_id}/{image}", "--encoder", "pixels")
    assert lookalike("ingest", "photos", *options, cwd=tmp_path).returncode == 0
    with child_service(tmp_path) as child, client(child.address) as http, ThreadPoolExecutor(4) as threads:
        numbers = itertools.count()

        def send(kind: int) -> int:
            return MIX[kind % len(MIX)](http, next(numbers)).status_code

        list(threads.map(send, range(WARM_UP)))
        before = child.memory()
        started = time.monotonic()
        statuses = list(threads.map(send, range(REQUESTS)))
        seconds = time.monotonic() - started
        grown = child.memory() - before
        metrics = http.get("/metrics").text
        assert list_hits(http)[:2]
    assert not [status for status in statuses if status >= 500]
    assert {200, 204, 404, 415, 422} <= set(statuses)
    # A leak of 20 kB in each request would be 100 MB.
    assert grown < 60 * MEGABYTE
    assert len(metrics) < 100_000, "names of clients do not become metrics"
    assert "Traceback" not in child.log.read_text()
    outcome(
        AREA,
        "5,000 mixed requests: searches, uploads, writes, mistakes, on 4 connections",
        f"no 5xx; {before // MEGABYTE} MB of memory before, {max(grown, 0) // MEGABYTE} MB more after {seconds:.0f} s",
    )
