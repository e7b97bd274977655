"""The service under load and failure: one decode an image, deadlines, limits, keys and recovery."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image, ImageFile
from proxy import Proxy
from serving import client, draw_noise, listening, service_for, until

from lookalike.encode.models.pixels import PixelEncoder
from lookalike.encode.preprocess import Pixels
from lookalike.encode.registry import load_encoder
from lookalike.schema.errors import EncoderUnavailable, StoreUnavailable, StoreUnreachable
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Vectors
from lookalike.serve.runtime.micro_batcher import MicroBatcher
from lookalike.serve.service import Service
from lookalike.serve.settings import Keys, Settings

READER, WRITER = "reader-0123456789", "writer-0123456789"


class BlockingEncoder(PixelEncoder):
    """Encodes once it is released; records the size of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()
        self.has_begun = threading.Event()
        self.sizes: list[int] = []
        self.fails = False
        self.shape: int | None = None

    def prepare(self, image: Image.Image) -> Pixels:
        return super().prepare(image)[: self.shape]

    def encode_images(self, batch: Pixels) -> Vectors:
        self.has_begun.set()
        self.release.wait(30)
        if self.fails:
            raise RuntimeError("out of memory at /secret/path")
        self.sizes.append(len(batch))
        return super().encode_images(batch)


class CountingEncoder(PixelEncoder):
    """Counts the images that it prepares."""

    def __init__(self) -> None:
        super().__init__()
        self.prepared = 0

    def prepare(self, image: Image.Image) -> Pixels:
        self.prepared += 1
        return super().prepare(image)


class DecodeCounter:
    """Counts the images that Pillow decodes; reading a header does not count."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        load = ImageFile.ImageFile.load

        def counted_load(image: ImageFile.ImageFile) -> Any:
            self.count += bool(image.tile)
            return load(image)

        monkeypatch.setattr(ImageFile.ImageFile, "load", counted_load)


def test_a_put_decodes_each_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, decodes = CountingEncoder(), DecodeCounter(monkeypatch)
    one, two, broken = draw_noise((60, 50), seed=1), draw_noise((50, 60), "JPEG", seed=2), draw_noise((60, 60))[:-99]
    with Store.create(str(tmp_path / "put.db"), encoder.fingerprint) as store:
        service = service_for(store, encoder, tmp_path / "uploads")
        with listening(service) as address, client(address) as http:

            def put(*images: bytes) -> tuple[int, int, int]:
                encoder.prepared = decodes.count = 0
                status = http.put("/products/p", files=[("image", image) for image in images]).status_code
                return status, decodes.count, encoder.prepared

            assert put(one, two, one) == (200, 2, 2)
            assert put(one, two) == (200, 0, 0), "stored images are not decoded again"
            assert put(two, broken)[0] == 422
            assert len(http.get("/products/p").json()["images"]) == 2, "the refused product has not changed"
            assert len(list((tmp_path / "uploads").rglob("*.*"))) == 2, "nothing of it was written"


@pytest.fixture
def blocked(tmp_path: Path) -> Iterator[tuple[Service, BlockingEncoder, str]]:
    encoder = BlockingEncoder()
    with Store.create(str(tmp_path / "slow.db"), encoder.fingerprint) as store:
        service = service_for(store, encoder, tmp_path / "uploads", deadline=2.0, max_in_flight=20)
        with listening(service) as address:
            yield service, encoder, address
            encoder.release.set()


def keep_busy(
    encoder: BlockingEncoder, threads: Executor, http: httpx2.Client, count: int
) -> "list[Future[httpx2.Response]]":
    """Send several searches; the first one has reached the encoder before the others are sent."""

    def send(seed: int) -> "Future[httpx2.Response]":
        return threads.submit(http.post, "/search", files={"image": draw_noise((20, 20), seed=seed)})

    first = send(0)
    encoder.has_begun.wait(10)
    return [first, *map(send, range(1, count))]


def test_a_request_past_its_deadline_gets_a_504_and_is_not_encoded(
    blocked: tuple[Service, BlockingEncoder, str],
) -> None:
    _, encoder, address = blocked
    with client(address) as http, ThreadPoolExecutor(4) as threads:
        pending = keep_busy(encoder, threads, http, 4)
        late = [response.result() for response in pending]
        assert [response.status_code for response in late] == [504] * 4
        assert "within 2 s" in late[0].json()["detail"]
        encoder.release.set()
        assert http.post("/search", files={"image": draw_noise((20, 20))}).status_code == 200
    # The first one had reached the encoder; the other three were dropped.
    assert sum(encoder.sizes) == 2


def test_a_request_whose_client_disconnected_is_not_encoded(blocked: tuple[Service, BlockingEncoder, str]) -> None:
    _, encoder, address = blocked
    with client(address) as http, ThreadPoolExecutor(1) as threads:
        [pending] = keep_busy(encoder, threads, http, 1)
        for seed in range(3):
            with pytest.raises(httpx2.ReadTimeout):
                httpx2.post(f"{address}/search", files={"image": draw_noise((20, 20), seed=seed)}, timeout=0.2)
        time.sleep(0.3)
        encoder.release.set()
        assert pending.result().status_code == 200
        assert http.get("/ready").status_code == 200
    assert sum(encoder.sizes) == 2


def test_concurrent_requests_are_encoded_in_one_batch(blocked: tuple[Service, BlockingEncoder, str]) -> None:
    service, encoder, address = blocked
    with client(address) as http, ThreadPoolExecutor(12) as threads:
        pending = keep_busy(encoder, threads, http, 12)
        until(lambda: service.live.queue_length == 11)
        encoder.release.set()
        assert [response.result().status_code for response in pending] == [200] * 12
    assert encoder.sizes == [1, 11]


def test_requests_above_the_limit_get_a_429(blocked: tuple[Service, BlockingEncoder, str]) -> None:
    service, encoder, address = blocked
    with client(address) as http, ThreadPoolExecutor(20) as threads:
        pending = keep_busy(encoder, threads, http, 20)
        until(lambda: service.live.queue_length == 19)
        refused = http.post("/search", files={"image": draw_noise((20, 20))})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
        assert http.get("/health").status_code == 200
        encoder.release.set()
        assert {response.result().status_code for response in pending} == {200}


def test_the_service_recovers_from_an_encoder_that_fails(blocked: tuple[Service, BlockingEncoder, str]) -> None:
    _, encoder, address = blocked
    encoder.release.set()
    encoder.fails = True
    with client(address) as http:
        response = http.post("/search", files={"image": draw_noise((20, 20))})
        assert response.status_code == 503
        assert "secret" not in response.text
        assert http.get("/ready").status_code == 503
        encoder.fails = False
        assert http.post("/search", files={"image": draw_noise((20, 20))}).status_code == 200
        until(lambda: http.get("/ready").status_code == 200)


def test_an_unexpected_exception_reveals_nothing(blocked: tuple[Service, BlockingEncoder, str]) -> None:
    _, encoder, address = blocked
    encoder.release.set()
    encoder.shape = "wrong"  # type: ignore[assignment]
    with client(address) as http:
        response = http.post("/search", files={"image": draw_noise((20, 20))})
        assert (response.status_code, response.headers["content-type"]) == (500, "application/problem+json")
        assert "Traceback" not in response.text
        assert response.json()["request_id"] == response.headers["x-request-id"]
        encoder.shape = None
        assert http.post("/search", files={"image": draw_noise((20, 20))}).status_code == 200


def test_requests_that_have_begun_are_finished_at_shutdown(tmp_path: Path) -> None:
    encoder = BlockingEncoder()
    with Store.create(str(tmp_path / "end.db"), encoder.fingerprint) as store, ThreadPoolExecutor(3) as threads:
        service = service_for(store, encoder, tmp_path / "uploads")
        with listening(service) as address:
            pending = keep_busy(encoder, threads, client(address), 3)
            until(lambda: service.live.queue_length == 2)
            threading.Timer(0.5, encoder.release.set).start()
        assert [response.result().status_code for response in pending] == [200] * 3


def test_clients_without_a_key_do_not_keep_others_waiting(tmp_path: Path) -> None:
    encoder = PixelEncoder()
    with Store.create(str(tmp_path / "open.db"), encoder.fingerprint) as store, ExitStack() as stack:
        service = service_for(
            store, encoder, tmp_path / "uploads", keys=READER, max_in_flight=5, public_body_timeout=1.0
        )
        with listening(service) as address, client(address) as http:
            port = http.base_url.port
            connections = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(8)]
            for connection in connections:
                connection.sendall(b"POST /login HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n")
                connection.sendall(b"content-type: application/x-www-form-urlencoded\r\n\r\nkey=")
            response = http.get("/products/p", headers={"x-api-key": READER})
            assert response.status_code == 404, "the service is not kept busy"
            for _ in range(3):
                time.sleep(0.5)
                for connection in connections:
                    connection.sendall(b"a")
            assert {connection.recv(99).split()[1] for connection in connections} == {b"408"}
            assert http.post("/login", data={"key": "a" * 20_000}).status_code == 413


def test_a_readiness_check_outlives_the_client_that_started_it(blocked: tuple[Service, BlockingEncoder, str]) -> None:
    _, encoder, address = blocked
    with client(address) as http, ThreadPoolExecutor(1) as threads:
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.get(f"{address}/ready", timeout=0.3)
        pending = threads.submit(http.get, "/ready")
        time.sleep(0.2)
        encoder.release.set()
        assert pending.result().status_code == 200


@pytest.mark.parametrize(
    ("bad", "expected", "sizes"), [("bad", [True, False, True], [3, 1, 1, 1]), ("away", [False] * 3, [3])]
)
def test_one_bad_query_does_not_fail_the_others_of_its_batch(bad: str, expected: list[bool], sizes: list[int]) -> None:
    def run(items: Sequence[str]) -> list[str]:
        calls.append(len(items))
        has_begun.set()
        release.wait(10)
        if "away" in items:
            raise StoreUnreachable("nobody is there")
        if "bad" in items:
            raise StoreUnavailable("refused")
        return list(items)

    calls: list[int] = []
    has_begun, release = threading.Event(), threading.Event()
    batcher: MicroBatcher[str, str] = MicroBatcher(run, 8, 1)
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(batcher.run_items, ["first"])
        has_begun.wait(10)
        pending = [threads.submit(batcher.run_items, [item]) for item in ("good", bad, "good")]
        until(lambda: batcher.queue_length == 3)
        release.set()
        assert first.result() == ["first"]
        assert [result.exception() is None for result in pending] == expected
    assert calls[1:] == sizes
    batcher.close()


def test_keys_decide_who_reads_and_who_writes(tmp_path: Path) -> None:
    encoder = PixelEncoder()
    with Store.create(str(tmp_path / "keys.db"), encoder.fingerprint) as store:
        service = service_for(store, encoder, tmp_path / "uploads", keys=f"{READER}, {WRITER}:write")
        with listening(service) as address, client(address) as http:

            def status(method: str, path: str, key: str | None = None, **sent: Any) -> int:
                headers = {} if key is None else {"authorization": f"Bearer {key}"}
                return http.request(method, path, headers=headers, **sent).status_code

            put = {"files": {"image": draw_noise((20, 20))}}
            assert [status("GET", path) for path in ("/health", "/ready", "/metrics", "/openapi.json")] == [
                200,
                200,
                401,
                401,
            ]
            assert [status("GET", "/products/p", key) for key in (None, "wrong-0123456789", READER[:-1])] == [401] * 3
            assert status("PUT", "/products/p", READER, **put) == 403
            assert status("PUT", "/products/p", WRITER, **put) == 200
            assert status("GET", "/products/p", READER) == 200
            assert status("DELETE", "/products/p", READER) == 403
            assert http.get("/products/p", headers={"x-api-key": READER}).status_code == 200
            assert http.get("/products/p").headers["www-authenticate"] == "Bearer"


def test_without_keys_only_this_machine_is_served(blocked: tuple[Service, BlockingEncoder, str]) -> None:
    with client(blocked[2]) as http:
        assert http.get("/products/p", headers={"host": "shop.example"}).status_code == 403
        assert http.get("/products/p", headers={"host": "localhost:1"}).status_code == 404
        assert http.get("/products/p", headers={"host": "["}).status_code == 403


@pytest.mark.slow
def test_the_service_recovers_when_milvus_is_back(server: str, tmp_path: Path) -> None:
    proxy, encoder = Proxy(server), PixelEncoder()
    with Store.create(proxy.uri, encoder.fingerprint, collection="serve_away") as store:
        service = service_for(store, encoder, tmp_path / "uploads")
        with listening(service) as address, client(address) as http:
            upload: Any = {"files": {"image": draw_noise((20, 20))}}
            assert http.post("/search", **upload).status_code == 200
            proxy.cut()
            response = http.post("/search", **upload)
            assert response.status_code == 503
            assert response.headers["retry-after"]
            assert proxy.uri not in response.text
            assert http.get("/ready").status_code == 503
            assert http.get("/health").status_code == 200
            proxy.connected = True
            until(lambda: http.post("/search", **upload).status_code == 200)
            until(lambda: http.get("/ready").status_code == 200)
    proxy.close()


def test_a_service_without_its_encoder_does_not_start(tmp_path: Path) -> None:
    encoder = load_encoder("pixels")

    def missing(name: str) -> Any:
        raise EncoderUnavailable(f"no weights of {name}")

    with (
        Store.create(str(tmp_path / "no.db"), encoder.fingerprint) as store,
        pytest.raises(EncoderUnavailable, match="no weights of pixels"),
    ):
        Service.start(Settings(Keys({})), lambda: Store.open(store.uri), missing)
