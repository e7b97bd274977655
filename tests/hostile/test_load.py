"""Thousands of mixed requests, and a Milvus server that is killed and brought back."""

import base64
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from command import lookalike, process_environment
from conftest import HAS_SERVER
from hostile.attacked import JSON, draw_png, draw_products
from hostile.conftest import Outcome
from hostile.guarded_process import guarded_service
from milvus_server import SHORT_INTERVALS
from serving import client, draw_noise, until

from lookalike.stack.milvus import find_free_port

AREA = "Service: load and failure"
MEGABYTE = 2**20
WARM_UP, REQUESTS = 1_500, 5_000
"""The warm-up fills each cache: those of vectors, thumbnails and uploaded images are bounded."""
GROWTH = 64 * MEGABYTE

Send = Callable[[httpx2.Client, int], httpx2.Response]
LARGE = draw_noise((1_000, 1_000), "JPEG")
PHOTO = base64.b64encode(draw_png("red")).decode()


def put_and_delete(http: httpx2.Client, number: int) -> httpx2.Response:
    path = f"/products/p{number}"
    put = http.put(path, files={"image": draw_noise((20, 20), seed=number)}, data={"product": '{"metadata": {"a": 1}}'})
    assert put.status_code == 200, put.text
    return http.delete(path)


# Each request is one of a kind, so that whatever a cache, a metric or a log keeps of it would add up.
MIXED: dict[str, tuple[Send, int]] = {
    "product": (lambda http, n: http.post("/search", json={"product_id": "red", "limit": 1 + n % 3}), 200),
    "file": (lambda http, n: http.post("/search", files={"image": draw_noise((30, 20), seed=n)}), 200),
    "base64": (lambda http, n: http.post("/search", json={"like": [{"image": PHOTO, "weight": 1 / (1 + n)}]}), 200),
    "vector": (lambda http, n: http.post("/search", json={"vector": [1.0, *[n / 10_000] * 767]}), 200),
    "batch": (lambda http, n: http.post("/search/batch", json={"queries": [{"product_id": f"x{n}"}] * 5}), 200),
    "similar": (lambda http, n: http.get("/products/red/similar", params={"where": f"price < {n}"}), 200),
    "unknown product": (lambda http, n: http.get(f"/products/unknown-{n}"), 404),
    "unknown route": (lambda http, n: http.get(f"/unknown/{n}"), 404),
    "unknown method": (lambda http, n: http.request(f"METHOD{n}", "/search"), 405),
    "unknown parameter": (lambda http, n: http.get("/products/red", params={f"x{n}": "1"}), 422),
    "bad filter": (lambda http, n: http.get("/products/red/similar", params={"where": f"price << {n}"}), 422),
    "bad image": (lambda http, n: http.post("/search", files={"image": b"GIF89a" + bytes(n)}), 422),
    "bad JSON": (lambda http, n: http.post("/search", content=b"{" * (n + 1), headers=JSON), 422),
    "bad form": (
        lambda http, n: http.post("/search", content=b"x" * n, headers={"content-type": "multipart/form-data"}),
        400,
    ),
    "page": (lambda http, n: http.get("/", params={"product": "red", "utm_source": str(n), "min.price": str(n)}), 200),
    "page, unknown": (lambda http, n: http.get("/", params={"product": f"unknown-{n}"}), 404),
    "upload on the page": (
        lambda http, n: http.post("/", files={"image": draw_noise((40, 30), seed=n)}, follow_redirects=False),
        303,
    ),
    "image": (lambda http, n: http.get(f"/images/unknown{n}"), 404),
    "large image": (lambda http, n: http.post("/search", files={"image": LARGE}), 200),
    "bad type": (lambda http, n: http.post("/search", content=b"x", headers={"content-type": f"x/{n}"}), 415),
    "unknown column": (lambda http, n: http.post("/search", json={"product_id": "red", "where": {f"c{n}": 1}}), 422),
    "HEAD": (lambda http, n: http.head("/products/red"), 200),
    "readiness": (lambda http, n: http.get("/ready"), 200),
    "metrics": (lambda http, n: http.get("/metrics"), 200),
    "write": (put_and_delete, 204),
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("load")
    draw_products(folder / "photos")
    for colour in ("red", "green", "blue"):
        (folder / "photos" / colour / "1.json").write_text('{"price": 5}')
    done = lookalike("ingest", "photos", "--layout", "{product_id}/{image}", "--encoder", "pixels", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return folder


def send_mixed(http: httpx2.Client, numbers: range) -> Counter[str]:
    """Send requests of every kind in turn, eight at once; return the kinds that got another status than theirs."""

    def send(number: int) -> str:
        kind = [*MIXED][number % len(MIXED)]
        request, expected = MIXED[kind]
        status = request(http, number).status_code
        return "" if status == expected else f"{kind}: {status} instead of {expected}"

    with ThreadPoolExecutor(8) as threads:
        return Counter(filter(None, threads.map(send, numbers)))


def test_five_thousand_mixed_requests_leave_no_memory_behind(shop: Path, outcome: Outcome) -> None:
    with guarded_service(shop) as child, client(child.address) as http:
        assert not send_mixed(http, range(WARM_UP))
        before, metrics = child.memory(), len(http.get("/metrics").content)
        files = len([*Path(f"/proc/{child.process.pid}/fd").iterdir()])
        assert not send_mixed(http, range(WARM_UP, WARM_UP + REQUESTS))
        growth = child.memory() - before
        assert len([*Path(f"/proc/{child.process.pid}/fd").iterdir()]) <= files + 20
        # Numbers get more digits; a series for each request would be half a megabyte.
        assert len(http.get("/metrics").content) < metrics + 5_000
        assert not any((shop / "lookalike-uploads").rglob("*.*")), "the files of deleted products are deleted"
        assert "Traceback" not in child.log.read_text()
    assert growth < GROWTH
    outcome(
        AREA,
        f"{REQUESTS:,} requests of {len(MIXED)} kinds, good and bad, each different, eight at once",
        f"each answered as it should; {before // MEGABYTE} MB of memory before, {growth // MEGABYTE:+} MB after",
    )


class KilledServer:
    """A Milvus server that is killed and started again on the same port and data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, self._health_port = find_free_port(), find_free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; return once it answers."""
        data, ports = str(self._folder / "data"), (str(self._port), str(self._health_port))
        with (self._folder / "milvus.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lookalike.stack.milvus", data, *ports],
                env={**process_environment(), **SHORT_INTERVALS},
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        until(self._is_healthy, 180)

    def send_signal(self, number: signal.Signals) -> None:
        """Freeze it or kill it."""
        if self._process is not None:
            self._process.send_signal(number)
            if number == signal.SIGKILL:
                self._process.wait()

    def _is_healthy(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "milvus.log").read_text()[-2_000:]
        try:
            return httpx2.get(f"http://127.0.0.1:{self._health_port}/healthz", trust_env=False, timeout=5).text == "OK"
        except httpx2.TransportError:
            return False


@pytest.fixture
def killed_server(tmp_path: Path) -> Iterator[KilledServer]:
    if not HAS_SERVER:
        pytest.skip("no Milvus server: the wheel milvus==2.3.5 does not exist for this machine")
    server = KilledServer(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.send_signal(signal.SIGKILL)


AWAY: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a search by image": ("POST", "/search", {"json": {"image": PHOTO}}),
    "a search by product": ("POST", "/search", {"json": {"product_id": "red"}}),
    "similar products": ("GET", "/products/blue/similar", {}),
    "a product": ("GET", "/products/green", {}),
    "a write": ("PUT", "/products/red", {"json": {"metadata": {"price": 6}}}),
    "a removal": ("DELETE", "/products/blue", {}),
    "the page": ("GET", "/?product=red", {}),
    "readiness": ("GET", "/ready", {}),
}
KILLED, FROZEN = 15, 40
"""Seconds. A killed server refuses connections: the service gives up after 3. A call to a frozen one is given up after
10, and searches of one batch wait for each other, until the deadline of a request: 30."""
WRITES = ("a write", "a removal")
"""They run one at a time and wait for each other, until the deadline too."""


def test_a_killed_store_means_503_and_the_service_recovers_by_itself(
    killed_server: KilledServer, tmp_path: Path, outcome: Outcome
) -> None:
    draw_products(tmp_path / "photos")
    uri = ("--uri", killed_server.uri)
    done = lookalike("ingest", "photos", "--layout", "{product_id}/{image}", "--encoder", "pixels", *uri, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    with guarded_service(tmp_path, *uri) as child, client(child.address) as http:
        assert statuses(http) == {**dict.fromkeys(AWAY, 200), "a removal": 204}
        assert http.put("/products/blue", files={"image": draw_png("blue")}).status_code == 200
        waits = {}
        for how, sent, limit in (("frozen", signal.SIGSTOP, FROZEN), ("killed", signal.SIGKILL, KILLED)):
            killed_server.send_signal(sent)
            # /ready reuses its last result for a second.
            time.sleep(1.2)
            waits[f"{how} ({sent.name})"] = assert_away(http, limit)
        killed_server.start()
        until(lambda: http.get("/ready").status_code == 200, 120)
        until(lambda: http.post("/search", json={"image": PHOTO}).status_code == 200, 60)
        assert http.get("/products/red").json()["metadata"] == {"price": 6}
    for how, seconds in waits.items():
        away = (
            f"503 with Retry-After, or 504 where a write or a frozen server takes 30 s; reads {seconds:.0f} s at most"
        )
        outcome(AREA, f"a Milvus server {how}", f"{away}; serves again by itself once Milvus does")


def statuses(http: httpx2.Client) -> dict[str, int]:
    return {name: http.request(method, url, **sent).status_code for name, (method, url, sent) in AWAY.items()}


def assert_away(http: httpx2.Client, limit: float) -> float:
    """Send each request twice, all at once; return the seconds of the slowest that writes nothing."""

    def send(name: str) -> tuple[str, int, float, str | None]:
        method, url, sent = AWAY[name]
        started = time.monotonic()
        response = http.request(method, url, **sent)
        assert "127.0.0.1" not in response.text
        return name, response.status_code, time.monotonic() - started, response.headers.get("retry-after")

    with ThreadPoolExecutor(2 * len(AWAY)) as threads:
        pending = threads.map(send, [*AWAY, *AWAY])
        health = http.get("/health", timeout=5).status_code
        responses = [*pending]
    assert health == 200
    for name, status, seconds, retry in responses:
        may_wait = limit == FROZEN or name in WRITES
        assert status == 503 or (may_wait and status == 504), name
        assert seconds < (FROZEN if may_wait else limit), name
        assert retry or status == 504 or name == "the page", name
    return max(seconds for name, _, seconds, _ in responses if name not in WRITES)
