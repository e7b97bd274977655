"""The service over HTTP: results, refusals, limits and failures."""

import base64
import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2
import numpy as np
import pytest
from conftest import NewStore, bring
from PIL import Image, ImageFile
from proxy import Proxy
from serving import client, listening, service_for, until

from lookalike.encode.encoder import Encoder
from lookalike.encode.models.pixels import PixelEncoder
from lookalike.encode.preprocess import Pixels
from lookalike.encode.registry import load_encoder
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import Layout
from lookalike.schema.errors import EncoderUnavailable, StoreUnavailable, StoreUnreachable
from lookalike.schema.milvus.store import Store
from lookalike.schema.milvus.versions import Versions
from lookalike.schema.product import Vectors
from lookalike.search.finder import Finder
from lookalike.search.query import Part, Query
from lookalike.serve.runtime.micro_batcher import MicroBatcher
from lookalike.serve.service import Service

READER, WRITER = "reader-0123456789", "writer-0123456789"


class Shop(NamedTuple):
    """The sample catalogue behind the service."""

    http: httpx2.Client
    service: Service
    finder: Finder
    folder: Path


@pytest.fixture(scope="module")
def shop(
    new_store: NewStore, encoder: Encoder, catalogue: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    store = new_store(encoder.fingerprint)
    source = FolderSource(catalogue / "photos", Layout("{category}/{product_id}/{image}"))
    bring(source.images(), encoder, store, batch_size=32)
    service = service_for(store, encoder, tmp_path_factory.mktemp("uploads"), lanes=2)
    with listening(service) as address, client(address) as http:
        yield Shop(http, service, Finder(store, lambda: encoder), catalogue)


@pytest.fixture(scope="module")
def mug(catalogue: Path) -> bytes:
    return (catalogue / "queries" / "red-plain-mug.jpg").read_bytes()


def ids(response: httpx2.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [hit["product_id"] for hit in response.json()["hits"]]


def to_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def draw_noise(size: tuple[int, int], image_format: str = "PNG", seed: int = 0) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, image_format)
    return file.getvalue()


# Search.


def test_search_over_http_returns_what_the_finder_returns(shop: Shop, mug: bytes) -> None:
    query = Query(
        like=(Part(image=mug, weight=2), Part(product_id="blue-checked-shirt")),
        unlike=(Part(product_id="red-checked-bag"),),
        limit=7,
    )
    body = {
        "like": [{"image": to_base64(mug), "weight": 2}, {"product_id": "blue-checked-shirt"}],
        "unlike": [{"product_id": "red-checked-bag"}],
        "limit": 7,
    }
    response = shop.http.post("/search", json=body)
    expected = shop.finder.find(query)
    assert ids(response) == [hit.product_id for hit in expected.hits]
    assert [hit["score"] for hit in response.json()["hits"]] == pytest.approx(
        [hit.score for hit in expected.hits], abs=1e-4
    )
    assert response.json()["next_offset"] == 7
    assert str(shop.folder) not in response.text, "the response has the path of a file"


def test_a_form_may_hold_files_and_a_query(shop: Shop, mug: bytes) -> None:
    query = {"where": {"category": {"in": ["mug", "bag"]}}, "limit": 3, "per_product": 2, "fields": ["category"]}
    response = shop.http.post("/search", files={"image": mug}, data={"query": json.dumps(query)})
    assert ids(response)[0] == "red-plain-mug"
    assert [len(hit["images"]) for hit in response.json()["hits"]] == [2, 2, 2]
    two = shop.http.post("/search", files=[("image", mug), ("image", draw_noise((40, 40)))])
    assert len(ids(two)) == 10


def test_queries_by_image_product_stored_image_and_vector(shop: Shop, mug: bytes) -> None:
    first = shop.http.get("/products/red-plain-mug").json()["images"][0]
    vector = [1.0] + [0.0] * (shop.service.live.version.store.fingerprint.dim - 1)
    for body in ({"image": to_base64(mug)}, {"product_id": "red-plain-mug"}, {"image_id": first["image_id"]}):
        assert ids(shop.http.post("/search", json={**body, "where": {"category": "mug"}, "limit": 2}))
    assert len(ids(shop.http.post("/search", json={"vector": vector, "limit": 64}))) == 64
    similar = shop.http.get("/products/red-plain-mug/similar", params={"limit": 3, "where": "category = mug"})
    body = {"product_id": "red-plain-mug", "limit": 3, "where": {"category": "mug"}}
    assert ids(similar) == ids(shop.http.post("/search", json=body))


def test_a_batch_returns_results_and_problems(shop: Shop, mug: bytes) -> None:
    queries = [{"image": to_base64(mug), "limit": 1}, {"product_id": "nothing"}, {"product_id": "red-plain-mug"}]
    response = shop.http.post("/search/batch", json={"queries": queries})
    first, second, third = response.json()["results"]
    assert first["hits"][0]["product_id"] == "red-plain-mug"
    assert (second["status"], second["title"]) == (404, "Not Found")
    assert "no product 'nothing'" in second["detail"]
    assert len(third["hits"]) == 10


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


# A few hundred bytes that unpack to thirty gigabytes.
BOMB = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
BOMB += chunk(b"IDAT", zlib.compress(bytes(99_999))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({}, 422, "nothing is asked"),
        ({"product_id": "nothing"}, 404, "no product 'nothing'"),
        ({"image_id": "nothing"}, 404, "no image 'nothing'"),
        ({"text": "a red mug"}, 422, "knows images but no words"),
        ({"product_id": "red-plain-mug", "limit": 0}, 422, "see `errors`"),
        ({"product_id": "red-plain-mug", "lmit": 3}, 422, "see `errors`"),
        ({"product_id": "red-plain-mug", "offset": 9_999, "limit": 10}, 422, "offset 9999 is not between"),
        ({"product_id": "red-plain-mug", "where": {"a": {"like": "b"}}}, 422, "'like' is no operator"),
        ({"product_id": "red-plain-mug", "where": {"a": {"in": list(range(2_000))}}}, 422, "too many"),
        ({"vector": [1.0, 2.0]}, 422, "the vector has 2 numbers"),
        ({"image": "no base64"}, 422, "see `errors`"),
        ({"image": to_base64(b"no image")}, 422, "not an image that can be read"),
        ({"image": to_base64(b"")}, 422, "the file is empty"),
        ({"image": to_base64(BOMB)}, 422, "pixels, the limit"),
        ({"image": to_base64(draw_noise((64, 64))[:-100])}, 422, "the image is broken"),
        ({"image_url": "http://127.0.0.1/x.jpg"}, 422, "not fetched by this service"),
        ({"product_id": "red-plain-mug", "where": {"image": {"lt": "/m"}}}, 422, "image has no order here"),
        ({"product_id": "red-plain-mug", "where": {"or": [{"a": 1}] * 200}}, 422, "up to 100 filters"),
        ({"like": [{"text": "a", "product_id": "b"}]}, 422, "one of image, text"),
        ({"like": [{"image_url": "http://x", "text": "b"}]}, 422, "one of image, image_url"),
    ],
)
def test_a_bad_query_gets_a_problem(shop: Shop, body: dict[str, Any], status: int, detail: str) -> None:
    response = shop.http.post("/search", json=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert detail in problem["detail"]
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("sent", "status", "detail"),
    [
        ({"content": b"{"}, 415, "a body of no type"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "see `errors`"),
        ({"content": b"\xff\xfe", "headers": {"content-type": "application/json"}}, 422, "see `errors`"),
        ({"data": {"image": "x"}}, 415, "application/x-www-form-urlencoded"),
        ({"files": {"image": b"x"}, "data": {"other": "x"}}, 422, "unknown form field 'other'; send files as image"),
        ({"files": {"photo": b"x"}}, 422, "unknown form file 'photo'; send files as image and JSON as query"),
        ({"files": {"query": b"{"}}, 422, "see `errors`"),
        ({"files": {"image": b"x"}, "data": {"query": "{"}}, 422, "see `errors`"),
        ({"content": b"--", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
    ],
)
def test_a_body_that_cannot_be_read_gets_a_problem(shop: Shop, sent: dict[str, Any], status: int, detail: str) -> None:
    response = shop.http.post("/search", **sent)
    assert response.status_code == status, response.text
    assert detail in response.json()["detail"]


def test_only_the_first_errors_are_listed(shop: Shop) -> None:
    """Of a list only the first error is listed; of too many fields only their number."""
    few = shop.http.post("/search", json={"vector": ["x"] * 30_000, "limit": "5"}).json()["errors"]
    assert [error["at"] for error in few] == ["vector/0", "limit"]
    many = shop.http.post("/search", json=dict.fromkeys(map(str, range(100_000)), 1)).json()["errors"]
    assert many == [{"at": "", "detail": "100000 errors"}]


# Products and images.


def test_a_stored_image_is_sent_as_it_is_or_scaled_down(shop: Shop) -> None:
    first = shop.http.get("/products/red-plain-mug").json()["images"][0]
    row = next(shop.service.live.version.store.get([first["image_id"]], ["image"]))
    original = shop.http.get(first["url"])
    assert original.content == Path(row["image"]).read_bytes()
    assert original.headers["content-type"] == "image/jpeg"
    small = shop.http.get(first["url"], params={"size": 64})
    assert max(Image.open(io.BytesIO(small.content)).size) == 64
    again = shop.http.get(first["url"], params={"size": 64}, headers={"if-none-match": small.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert shop.http.get(first["url"], params={"size": 63}).status_code == 422
    for path in ("nothing", quote("../../etc/passwd", safe=""), quote(row["image"], safe="")):
        assert shop.http.get(f"/images/{path}").status_code == 404


@pytest.mark.parametrize("product_id", ["new", "a/b c", "'\"\\", "日本 %2F?#", "similar"])
def test_a_product_is_written_read_found_and_removed(shop: Shop, product_id: str) -> None:
    path = f"/products/{quote(product_id, safe='')}"
    one, two = draw_noise((60, 50), seed=1), draw_noise((50, 60), "JPEG", seed=2)

    put = shop.http.put(path, files=[("image", one), ("image", two)], data={"product": '{"metadata": {"price": 5}}'})
    assert put.json() == {"product_id": product_id, "new": 2, "changed": 0, "metadata": 0, "unchanged": 0, "removed": 0}
    again = shop.http.put(
        path, json={"images": [{"image": to_base64(one)}, {"image": to_base64(two)}], "metadata": {"price": 5}}
    )
    assert (again.json()["unchanged"], again.json()["new"]) == (2, 0)
    product = shop.http.get(path).json()
    assert (product["product_id"], product["metadata"], len(product["images"])) == (product_id, {"price": 5}, 2)
    assert ids(shop.http.post("/search", files={"image": two}))[0] == product_id
    assert shop.http.get(product["images"][0]["url"]).content in (one, two)
    assert product_id not in ids(shop.http.get(f"{path}/similar"))

    priced = shop.http.put(path, json={"metadata": {"price": 6, "sale": True}})
    assert priced.json()["metadata"] == 2
    assert ids(shop.http.post("/search", files={"image": two}, data={"query": '{"where": {"price": 6}}'})) == [
        product_id
    ]

    fewer = shop.http.put(path, json={"images": [{"image": to_base64(one)}]})
    assert (fewer.json()["removed"], fewer.json()["metadata"]) == (1, 1)
    assert shop.http.delete(path).status_code == 204
    assert shop.http.get(path).status_code == 404
    assert shop.http.delete(path).status_code == 404
    assert not list(shop.service.settings.uploads.rglob("*.*")), "no file is left behind"


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"metadata": {"price": 5}}, 404, "put it with its images first"),
        ({"images": []}, 422, "see `errors`"),
        ({"images": [{}]}, 422, "either `image`"),
        ({"images": [{"image": to_base64(b"x")}]}, 422, "not an image"),
        ({"images": [{"image": to_base64(draw_noise((9, 9)))}, {"image": to_base64(b"x")}]}, 422, "not an image"),
        (
            {"images": [{"image": to_base64(draw_noise((9, 9)))}], "metadata": {"source": "x"}},
            422,
            "column of the collection",
        ),
        (
            {"images": [{"image": to_base64(draw_noise((9, 9)))}], "metadata": {"long": "x" * 70_000}},
            422,
            "the metadata has",
        ),
        ({"images": [{"image": to_base64(draw_noise((9, 9)))}], "metadata": {"n": 2**63}}, 422, "the metadata holds"),
    ],
)
def test_a_bad_product_is_refused_and_changes_nothing(
    shop: Shop, body: dict[str, Any], status: int, detail: str
) -> None:
    response = shop.http.put("/products/bad", json=body)
    assert response.status_code == status, response.text
    assert detail in response.json()["detail"]
    assert shop.http.get("/products/bad").status_code == 404
    assert not list(shop.service.settings.uploads.rglob("*.*"))


@pytest.mark.parametrize(("product_id", "detail"), [("a/similar", "ends in /similar"), ("ä" * 513, "product_id has")])
def test_a_product_id_that_no_route_could_address_is_refused(shop: Shop, product_id: str, detail: str) -> None:
    response = shop.http.put(f"/products/{quote(product_id)}", files={"image": draw_noise((9, 9))})
    assert response.status_code == 422
    assert detail in response.json()["detail"]


def test_a_put_with_a_misnamed_file_is_refused(shop: Shop) -> None:
    """It would otherwise replace the metadata and leave out the image."""
    before = shop.http.get("/products/red-plain-mug").json()
    response = shop.http.put("/products/red-plain-mug", files={"images": draw_noise((9, 9))})
    assert response.status_code == 422
    assert "unknown form file 'images'; send files as image and JSON as product" in response.json()["detail"]
    assert shop.http.get("/products/red-plain-mug").json() == before


def test_the_json_of_a_form_may_be_a_file(shop: Shop, mug: bytes) -> None:
    query = ("query.json", b'{"limit": 2}', "application/json")
    assert len(ids(shop.http.post("/search", files={"image": mug, "query": query}))) == 2


def test_a_product_does_not_reveal_paths(shop: Shop) -> None:
    response = shop.http.get("/products/red-plain-mug")
    assert response.json()["images"][0]["source"] == "photos"
    assert str(shop.folder) not in response.text


# Hostile and heavy input.


BROKEN = {
    "one pixel": draw_noise((1, 1)),
    "a line": draw_noise((20_000, 1)),
    "a bomb": BOMB,
    "cut short": draw_noise((300, 300), "JPEG")[:5_000],
    "text": b"<html>" * 1_000,
    "zeros": bytes(100_000),
}


def test_broken_images_do_no_harm(shop: Shop, mug: bytes) -> None:
    expected = ids(shop.http.post("/search", files={"image": mug}))
    for name, content in BROKEN.items():
        response = shop.http.post("/search", files={"image": content})
        assert response.status_code == (200 if name in ("one pixel", "a line") else 422), name
        assert ids(shop.http.post("/search", files={"image": mug})) == expected
    assert shop.http.get("/ready").json() == {"status": "ready"}


def test_a_body_that_is_too_large_is_refused_whatever_length_it_announces(shop: Shop) -> None:
    large = bytes(50 * 2**20)
    assert shop.http.post("/search", files={"image": large}).status_code == 413
    parts = (large[: 2**20] for _ in range(50))
    response = shop.http.post("/search", content=parts, headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert "26214400 bytes, the limit" in response.json()["detail"]
    assert shop.http.get("/ready").status_code == 200


def test_clients_that_disconnect_do_no_harm(shop: Shop, mug: bytes) -> None:
    head = b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n"
    address = (shop.http.base_url.host, shop.http.base_url.port)
    for sent in (head, head + b"{", b"GET", head.replace(b"9999", b"2") + b"{}"):
        for _ in range(5):
            with socket.create_connection(address) as line:
                line.sendall(sent)
    assert len(ids(shop.http.post("/search", files={"image": mug}))) == 10
    assert shop.http.get("/ready").status_code == 200


def test_of_two_hundred_requests_at_once_the_rest_is_refused(shop: Shop, mug: bytes) -> None:
    with ThreadPoolExecutor(200) as threads:
        responses = list(threads.map(lambda _: shop.http.post("/search", files={"image": mug}), range(200)))
    statuses = [response.status_code for response in responses]
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= 128
    assert all(response.headers["retry-after"] for response in responses if response.status_code == 429)
    assert shop.http.get("/ready").status_code == 200
    assert "lookalike_in_flight 1.0" in shop.http.get("/metrics").text


def test_metrics_count_requests_stages_and_batches(shop: Shop) -> None:
    shop.http.get("/products/red-plain-mug/similar")
    text = shop.http.get("/metrics").text
    for line in (
        'lookalike_requests_total{method="GET",route="/products/{product_id}/similar",status="200"}',
        'lookalike_stage_seconds_count{stage="search"}',
        "lookalike_batch_size_count",
        "lookalike_queue_length 0.0",
        "lookalike_errors_total",
    ):
        assert line in text
    assert "red-plain-mug" not in text


def test_the_service_moves_to_the_version_that_goes_live(shop: Shop, mug: bytes) -> None:
    """A reindex moves the alias to another version; this one is empty, so that the result shows it."""
    before = shop.service.live.version
    with Versions(before.store.uri, collection=before.store.name) as versions:
        made = versions.make(before.store.fingerprint)
        versions.go_live(made)
        shop.service.live.look()
        assert ids(shop.http.post("/search", files={"image": mug})) == []
        versions.go_live(before.store.version)
        shop.service.live.look()
        assert len(ids(shop.http.post("/search", files={"image": mug}))) == 10


# Tests with a service of their own.


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
        until(lambda: service.live.waiting == 11)
        encoder.release.set()
        assert [response.result().status_code for response in pending] == [200] * 12
    assert encoder.sizes == [1, 11]


def test_requests_above_the_limit_get_a_429(blocked: tuple[Service, BlockingEncoder, str]) -> None:
    service, encoder, address = blocked
    with client(address) as http, ThreadPoolExecutor(20) as threads:
        pending = keep_busy(encoder, threads, http, 20)
        until(lambda: service.live.waiting == 19)
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
            until(lambda: service.live.waiting == 2)
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
        first = threads.submit(batcher.do, ["first"])
        has_begun.wait(10)
        pending = [threads.submit(batcher.do, [item]) for item in ("good", bad, "good")]
        until(lambda: batcher.waiting == 3)
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

    with Store.create(str(tmp_path / "no.db"), encoder.fingerprint) as store:
        from lookalike.serve.settings import Keys, Settings

        with pytest.raises(EncoderUnavailable, match="no weights of pixels"):
            Service.start(Settings(Keys({})), lambda: Store.open(store.uri), missing)
