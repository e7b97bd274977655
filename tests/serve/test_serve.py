"""The service over HTTP: what it answers, refuses and survives."""

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
from PIL import Image
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


def ids(answer: httpx2.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [hit["product_id"] for hit in answer.json()["hits"]]


def coded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def drawn(size: tuple[int, int], form: str = "PNG", seed: int = 0) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, form)
    return file.getvalue()


# Questions.


def test_the_same_answer_as_the_finder(shop: Shop, mug: bytes) -> None:
    query = Query(
        like=(Part(image=mug, weight=2), Part(product_id="blue-checked-shirt")),
        unlike=(Part(product_id="red-checked-bag"),),
        limit=7,
    )
    asked = {
        "like": [{"image": coded(mug), "weight": 2}, {"product_id": "blue-checked-shirt"}],
        "unlike": [{"product_id": "red-checked-bag"}],
        "limit": 7,
    }
    answer = shop.http.post("/search", json=asked)
    expected = shop.finder.find(query)
    assert ids(answer) == [hit.product_id for hit in expected.hits]
    assert [hit["score"] for hit in answer.json()["hits"]] == pytest.approx(
        [hit.score for hit in expected.hits], abs=1e-4
    )
    assert answer.json()["next_offset"] == 7
    assert str(shop.folder) not in answer.text, "where files are stays ours"


def test_a_file_and_a_question_beside_it(shop: Shop, mug: bytes) -> None:
    question = {"where": {"category": {"in": ["mug", "bag"]}}, "limit": 3, "per_product": 2, "fields": ["category"]}
    answer = shop.http.post("/search", files={"image": mug}, data={"question": json.dumps(question)})
    assert ids(answer)[0] == "red-plain-mug"
    assert [len(hit["images"]) for hit in answer.json()["hits"]] == [2, 2, 2]
    two = shop.http.post("/search", files=[("image", mug), ("image", drawn((40, 40)))])
    assert len(ids(two)) == 10


def test_every_way_to_ask(shop: Shop, mug: bytes) -> None:
    first = shop.http.get("/products/red-plain-mug").json()["images"][0]
    vector = [1.0] + [0.0] * (shop.service.live.version.store.fingerprint.dim - 1)
    for asked in ({"image": coded(mug)}, {"product_id": "red-plain-mug"}, {"image_id": first["image_id"]}):
        assert ids(shop.http.post("/search", json={**asked, "where": {"category": "mug"}, "limit": 2}))
    assert len(ids(shop.http.post("/search", json={"vector": vector, "limit": 64}))) == 64
    similar = shop.http.get("/products/red-plain-mug/similar", params={"limit": 3, "where": "category = mug"})
    asked = {"product_id": "red-plain-mug", "limit": 3, "where": {"category": "mug"}}
    assert ids(similar) == ids(shop.http.post("/search", json=asked))


def test_many_questions_in_one_call(shop: Shop, mug: bytes) -> None:
    queries = [{"image": coded(mug), "limit": 1}, {"product_id": "nothing"}, {"product_id": "red-plain-mug"}]
    answer = shop.http.post("/search/batch", json={"queries": queries})
    first, second, third = answer.json()["answers"]
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
    ("asked", "status", "detail"),
    [
        ({}, 422, "the query is empty"),
        ({"product_id": "nothing"}, 404, "no product 'nothing'"),
        ({"image_id": "nothing"}, 404, "no image 'nothing'"),
        ({"text": "a red mug"}, 422, "encodes images but no text"),
        ({"product_id": "red-plain-mug", "limit": 0}, 422, "see `errors`"),
        ({"product_id": "red-plain-mug", "lmit": 3}, 422, "see `errors`"),
        ({"product_id": "red-plain-mug", "offset": 9_999, "limit": 10}, 422, "offset 9999 is not between"),
        ({"product_id": "red-plain-mug", "where": {"a": {"like": "b"}}}, 422, "'like' is no operator"),
        ({"product_id": "red-plain-mug", "where": {"a": {"in": list(range(2_000))}}}, 422, "too many"),
        ({"vector": [1.0, 2.0]}, 422, "the vector has 2 numbers"),
        ({"image": "no base64"}, 422, "see `errors`"),
        ({"image": coded(b"no image")}, 422, "not an image that can be read"),
        ({"image": coded(b"")}, 422, "the file is empty"),
        ({"image": coded(BOMB)}, 422, "pixels, the limit"),
        ({"image": coded(drawn((64, 64))[:-100])}, 422, "the image is broken"),
        ({"image_url": "http://127.0.0.1/x.jpg"}, 422, "not fetched by this service"),
        ({"product_id": "red-plain-mug", "where": {"image": {"lt": "/m"}}}, 422, "image has no order here"),
        ({"product_id": "red-plain-mug", "where": {"or": [{"a": 1}] * 200}}, 422, "up to 100 filters"),
        ({"like": [{"text": "a", "product_id": "b"}]}, 422, "one of image, text"),
        ({"like": [{"image_url": "http://x", "text": "b"}]}, 422, "one of image, image_url"),
    ],
)
def test_what_cannot_be_answered(shop: Shop, asked: dict[str, Any], status: int, detail: str) -> None:
    answer = shop.http.post("/search", json=asked)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert detail in problem["detail"]
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("sent", "status", "detail"),
    [
        ({"content": b"{"}, 415, "a body of no type"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "see `errors`"),
        ({"content": b"\xff\xfe", "headers": {"content-type": "application/json"}}, 422, "see `errors`"),
        ({"data": {"image": "x"}}, 415, "application/x-www-form-urlencoded"),
        ({"files": {"image": b"x"}, "data": {"other": "x"}}, 422, "has a field 'other'"),
        ({"files": {"image": b"x"}, "data": {"question": "{"}}, 422, "see `errors`"),
        ({"content": b"--", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
    ],
)
def test_bodies_that_are_not_understood(shop: Shop, sent: dict[str, Any], status: int, detail: str) -> None:
    answer = shop.http.post("/search", **sent)
    assert answer.status_code == status, answer.text
    assert detail in answer.json()["detail"]


def test_of_mistakes_the_first_are_told(shop: Shop) -> None:
    """A list ends at its first mistake; of other ones there may be as many as a body has room for."""
    some = shop.http.post("/search", json={"vector": ["x"] * 30_000, "limit": "5"}).json()["errors"]
    assert [wrong["at"] for wrong in some] == ["vector/0", "limit"]
    many = shop.http.post("/search", json=dict.fromkeys(map(str, range(100_000)), 1)).json()["errors"]
    assert many == [{"at": "", "detail": "100000 mistakes"}]


# Products and images.


def test_images_as_they_are_and_small(shop: Shop) -> None:
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
def test_a_product_is_put_told_found_and_removed(shop: Shop, product_id: str) -> None:
    path = f"/products/{quote(product_id, safe='')}"
    one, two = drawn((60, 50), seed=1), drawn((50, 60), "JPEG", seed=2)

    put = shop.http.put(path, files=[("image", one), ("image", two)], data={"product": '{"metadata": {"price": 5}}'})
    assert put.json() == {"product_id": product_id, "new": 2, "changed": 0, "metadata": 0, "unchanged": 0, "removed": 0}
    again = shop.http.put(
        path, json={"images": [{"image": coded(one)}, {"image": coded(two)}], "metadata": {"price": 5}}
    )
    assert (again.json()["unchanged"], again.json()["new"]) == (2, 0)
    told = shop.http.get(path).json()
    assert (told["product_id"], told["metadata"], len(told["images"])) == (product_id, {"price": 5}, 2)
    assert ids(shop.http.post("/search", files={"image": two}))[0] == product_id
    assert shop.http.get(told["images"][0]["url"]).content in (one, two)
    assert product_id not in ids(shop.http.get(f"{path}/similar"))

    priced = shop.http.put(path, json={"metadata": {"price": 6, "sale": True}})
    assert priced.json()["metadata"] == 2
    assert ids(shop.http.post("/search", files={"image": two}, data={"question": '{"where": {"price": 6}}'})) == [
        product_id
    ]

    fewer = shop.http.put(path, json={"images": [{"image": coded(one)}]})
    assert (fewer.json()["removed"], fewer.json()["metadata"]) == (1, 1)
    assert shop.http.delete(path).status_code == 204
    assert shop.http.get(path).status_code == 404
    assert shop.http.delete(path).status_code == 404
    assert not list(shop.service.settings.uploads.rglob("*.*")), "no file is left behind"


@pytest.mark.parametrize(
    ("asked", "status", "detail"),
    [
        ({"metadata": {"price": 5}}, 404, "put it with its images first"),
        ({"images": []}, 422, "see `errors`"),
        ({"images": [{}]}, 422, "either `image`"),
        ({"images": [{"image": coded(b"x")}]}, 422, "not an image"),
        ({"images": [{"image": coded(drawn((9, 9)))}, {"image": coded(b"x")}]}, 422, "not an image"),
        ({"images": [{"image": coded(drawn((9, 9)))}], "metadata": {"source": "x"}}, 422, "column of the collection"),
        ({"images": [{"image": coded(drawn((9, 9)))}], "metadata": {"long": "x" * 70_000}}, 422, "the metadata has"),
        ({"images": [{"image": coded(drawn((9, 9)))}], "metadata": {"n": 2**63}}, 422, "the metadata holds"),
    ],
)
def test_what_cannot_be_put_changes_nothing(shop: Shop, asked: dict[str, Any], status: int, detail: str) -> None:
    answer = shop.http.put("/products/bad", json=asked)
    assert answer.status_code == status, answer.text
    assert detail in answer.json()["detail"]
    assert shop.http.get("/products/bad").status_code == 404
    assert not list(shop.service.settings.uploads.rglob("*.*"))


@pytest.mark.parametrize(("product_id", "detail"), [("a/similar", "ends in /similar"), ("ä" * 513, "product_id has")])
def test_ids_that_could_not_be_asked_for(shop: Shop, product_id: str, detail: str) -> None:
    answer = shop.http.put(f"/products/{quote(product_id)}", files={"image": drawn((9, 9))})
    assert answer.status_code == 422
    assert detail in answer.json()["detail"]


def test_where_images_are_is_not_told(shop: Shop) -> None:
    told = shop.http.get("/products/red-plain-mug")
    assert told.json()["images"][0]["source"] == "photos"
    assert str(shop.folder) not in told.text


# What it survives.


POISON = {
    "one pixel": drawn((1, 1)),
    "a line": drawn((20_000, 1)),
    "a bomb": BOMB,
    "cut short": drawn((300, 300), "JPEG")[:5_000],
    "text": b"<html>" * 1_000,
    "zeros": bytes(100_000),
}


def test_poison_does_no_harm(shop: Shop, mug: bytes) -> None:
    expected = ids(shop.http.post("/search", files={"image": mug}))
    for name, content in POISON.items():
        answer = shop.http.post("/search", files={"image": content})
        assert answer.status_code == (200 if name in ("one pixel", "a line") else 422), name
        assert ids(shop.http.post("/search", files={"image": mug})) == expected
    assert shop.http.get("/ready").json() == {"status": "ready"}


def test_too_large_is_refused_announced_or_not(shop: Shop) -> None:
    large = bytes(50 * 2**20)
    assert shop.http.post("/search", files={"image": large}).status_code == 413
    parts = (large[: 2**20] for _ in range(50))
    answer = shop.http.post("/search", content=parts, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert "26214400 bytes, the limit" in answer.json()["detail"]
    assert shop.http.get("/ready").status_code == 200


def test_clients_that_hang_up(shop: Shop, mug: bytes) -> None:
    head = b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n"
    address = (shop.http.base_url.host, shop.http.base_url.port)
    for sent in (head, head + b"{", b"GET", head.replace(b"9999", b"2") + b"{}"):
        for _ in range(5):
            with socket.create_connection(address) as line:
                line.sendall(sent)
    assert len(ids(shop.http.post("/search", files={"image": mug}))) == 10
    assert shop.http.get("/ready").status_code == 200


def test_two_hundred_at_once(shop: Shop, mug: bytes) -> None:
    with ThreadPoolExecutor(200) as guests:
        answers = list(guests.map(lambda _: shop.http.post("/search", files={"image": mug}), range(200)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= 128
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 429)
    assert shop.http.get("/ready").status_code == 200
    assert "lookalike_in_flight 1.0" in shop.http.get("/metrics").text


def test_metrics_tell_what_happened(shop: Shop) -> None:
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


def test_another_version_is_taken_up(shop: Shop, mug: bytes) -> None:
    """A reindex moves the name to another version; here with other rows, so that the answer tells."""
    before = shop.service.live.version
    with Versions(before.store.uri, collection=before.store.name) as versions:
        made = versions.make(before.store.fingerprint)
        versions.go_live(made)
        shop.service.live.look()
        assert ids(shop.http.post("/search", files={"image": mug})) == []
        versions.go_live(before.store.version)
        shop.service.live.look()
        assert len(ids(shop.http.post("/search", files={"image": mug}))) == 10


# Those that need a service of their own.


class Slow(PixelEncoder):
    """Encodes when it is let; counts."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()
        self.begun = threading.Event()
        self.sizes: list[int] = []
        self.fails = False
        self.shape: int | None = None

    def prepare(self, image: Image.Image) -> Pixels:
        return super().prepare(image)[: self.shape]

    def encode_images(self, batch: Pixels) -> Vectors:
        self.begun.set()
        self.let.wait(30)
        if self.fails:
            raise RuntimeError("out of memory at /secret/path")
        self.sizes.append(len(batch))
        return super().encode_images(batch)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[Service, Slow, str]]:
    encoder = Slow()
    with Store.create(str(tmp_path / "slow.db"), encoder.fingerprint) as store:
        service = service_for(store, encoder, tmp_path / "uploads", deadline=2.0, max_in_flight=20)
        with listening(service) as address:
            yield service, encoder, address
            encoder.let.set()


def occupied(encoder: Slow, guests: Executor, http: httpx2.Client, asked: int) -> "list[Future[httpx2.Response]]":
    """Ask for several images, the first of which is with the encoder before the others come."""

    def ask(seed: int) -> "Future[httpx2.Response]":
        return guests.submit(http.post, "/search", files={"image": drawn((20, 20), seed=seed)})

    first = ask(0)
    encoder.begun.wait(10)
    return [first, *map(ask, range(1, asked))]


def test_deadlines_are_kept_and_what_is_late_is_not_computed(slow: tuple[Service, Slow, str]) -> None:
    _, encoder, address = slow
    with client(address) as http, ThreadPoolExecutor(4) as guests:
        asked = occupied(encoder, guests, http, 4)
        late = [answer.result() for answer in asked]
        assert [answer.status_code for answer in late] == [504] * 4
        assert "no answer within 2 s" in late[0].json()["detail"]
        encoder.let.set()
        assert http.post("/search", files={"image": drawn((20, 20))}).status_code == 200
    # The first was with the encoder already; the other three were let go.
    assert sum(encoder.sizes) == 2


def test_who_hangs_up_is_not_computed_for(slow: tuple[Service, Slow, str]) -> None:
    _, encoder, address = slow
    with client(address) as http, ThreadPoolExecutor(1) as guest:
        [waits] = occupied(encoder, guest, http, 1)
        for seed in range(3):
            with pytest.raises(httpx2.ReadTimeout):
                httpx2.post(f"{address}/search", files={"image": drawn((20, 20), seed=seed)}, timeout=0.2)
        time.sleep(0.3)
        encoder.let.set()
        assert waits.result().status_code == 200
        assert http.get("/ready").status_code == 200
    assert sum(encoder.sizes) == 2


def test_what_is_asked_at_once_goes_through_the_network_together(slow: tuple[Service, Slow, str]) -> None:
    service, encoder, address = slow
    with client(address) as http, ThreadPoolExecutor(12) as guests:
        asked = occupied(encoder, guests, http, 12)
        until(lambda: service.live.waiting == 11)
        encoder.let.set()
        assert [answer.result().status_code for answer in asked] == [200] * 12
    assert encoder.sizes == [1, 11]


def test_more_than_it_can_take_is_turned_away(slow: tuple[Service, Slow, str]) -> None:
    service, encoder, address = slow
    with client(address) as http, ThreadPoolExecutor(20) as guests:
        asked = occupied(encoder, guests, http, 20)
        until(lambda: service.live.waiting == 19)
        refused = http.post("/search", files={"image": drawn((20, 20))})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
        assert http.get("/health").status_code == 200
        encoder.let.set()
        assert {answer.result().status_code for answer in asked} == {200}


def test_an_encoder_that_fails_is_not_the_end(slow: tuple[Service, Slow, str]) -> None:
    _, encoder, address = slow
    encoder.let.set()
    encoder.fails = True
    with client(address) as http:
        answer = http.post("/search", files={"image": drawn((20, 20))})
        assert answer.status_code == 503
        assert "secret" not in answer.text
        assert http.get("/ready").status_code == 503
        encoder.fails = False
        assert http.post("/search", files={"image": drawn((20, 20))}).status_code == 200
        until(lambda: http.get("/ready").status_code == 200)


def test_what_nobody_foresaw_tells_nothing(slow: tuple[Service, Slow, str]) -> None:
    _, encoder, address = slow
    encoder.let.set()
    encoder.shape = "wrong"  # type: ignore[assignment]
    with client(address) as http:
        answer = http.post("/search", files={"image": drawn((20, 20))})
        assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
        assert "Traceback" not in answer.text
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        encoder.shape = None
        assert http.post("/search", files={"image": drawn((20, 20))}).status_code == 200


def test_it_finishes_what_it_took(tmp_path: Path) -> None:
    encoder = Slow()
    with Store.create(str(tmp_path / "end.db"), encoder.fingerprint) as store, ThreadPoolExecutor(3) as guests:
        service = service_for(store, encoder, tmp_path / "uploads")
        with listening(service) as address:
            asked = occupied(encoder, guests, client(address), 3)
            until(lambda: service.live.waiting == 2)
            threading.Timer(0.5, encoder.let.set).start()
        assert [answer.result().status_code for answer in asked] == [200] * 3


def test_who_has_no_key_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.serve.middleware._OPEN_SECONDS", 1.0)
    encoder = PixelEncoder()
    with Store.create(str(tmp_path / "open.db"), encoder.fingerprint) as store, ExitStack() as lines:
        service = service_for(store, encoder, tmp_path / "uploads", keys=READER, max_in_flight=5)
        with listening(service) as address, client(address) as http:
            port = http.base_url.port
            slow = [lines.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(8)]
            for line in slow:
                line.sendall(b"POST /login HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n")
                line.sendall(b"content-type: application/x-www-form-urlencoded\r\n\r\nkey=")
            answer = http.get("/products/p", headers={"x-api-key": READER})
            assert answer.status_code == 404, "the service is not kept busy"
            for _ in range(3):
                time.sleep(0.5)
                for line in slow:
                    line.sendall(b"a")
            assert {line.recv(99).split()[1] for line in slow} == {b"408"}
            assert http.post("/login", data={"key": "a" * 20_000}).status_code == 413


def test_readiness_is_not_taken_from_who_hangs_up(slow: tuple[Service, Slow, str]) -> None:
    _, encoder, address = slow
    with client(address) as http, ThreadPoolExecutor(1) as guest:
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.get(f"{address}/ready", timeout=0.3)
        asked = guest.submit(http.get, "/ready")
        time.sleep(0.2)
        encoder.let.set()
        assert asked.result().status_code == 200


@pytest.mark.parametrize(
    ("bad", "expected", "sizes"), [("bad", [True, False, True], [3, 1, 1, 1]), ("away", [False] * 3, [3])]
)
def test_one_bad_question_fails_no_others(bad: str, expected: list[bool], sizes: list[int]) -> None:
    def run(asked: Sequence[str]) -> list[str]:
        calls.append(len(asked))
        begun.set()
        let.wait(10)
        if "away" in asked:
            raise StoreUnreachable("nobody is there")
        if "bad" in asked:
            raise StoreUnavailable("refused")
        return list(asked)

    calls: list[int] = []
    begun, let = threading.Event(), threading.Event()
    together: MicroBatcher[str, str] = MicroBatcher(run, 8, 1)
    with ThreadPoolExecutor(4) as guests:
        first = guests.submit(together.do, ["first"])
        begun.wait(10)
        asked = [guests.submit(together.do, [one]) for one in ("good", bad, "good")]
        until(lambda: together.waiting == 3)
        let.set()
        assert first.result() == ["first"]
        assert [answer.exception() is None for answer in asked] == expected
    assert calls[1:] == sizes
    together.close()


def test_keys(tmp_path: Path) -> None:
    encoder = PixelEncoder()
    with Store.create(str(tmp_path / "keys.db"), encoder.fingerprint) as store:
        service = service_for(store, encoder, tmp_path / "uploads", keys=f"{READER}, {WRITER}:write")
        with listening(service) as address, client(address) as http:

            def status(method: str, path: str, key: str | None = None, **sent: Any) -> int:
                headers = {} if key is None else {"authorization": f"Bearer {key}"}
                return http.request(method, path, headers=headers, **sent).status_code

            put = {"files": {"image": drawn((20, 20))}}
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


def test_without_keys_only_this_machine_is_answered(slow: tuple[Service, Slow, str]) -> None:
    with client(slow[2]) as http:
        assert http.get("/products/p", headers={"host": "shop.example"}).status_code == 403
        assert http.get("/products/p", headers={"host": "localhost:1"}).status_code == 404
        assert http.get("/products/p", headers={"host": "["}).status_code == 403


@pytest.mark.slow
def test_milvus_away_and_back(server: str, tmp_path: Path) -> None:
    proxy, encoder = Proxy(server), PixelEncoder()
    with Store.create(proxy.uri, encoder.fingerprint, collection="serve_away") as store:
        service = service_for(store, encoder, tmp_path / "uploads")
        with listening(service) as address, client(address) as http:
            asked: Any = {"files": {"image": drawn((20, 20))}}
            assert http.post("/search", **asked).status_code == 200
            proxy.cut()
            answer = http.post("/search", **asked)
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            assert proxy.uri not in answer.text
            assert http.get("/ready").status_code == 503
            assert http.get("/health").status_code == 200
            proxy.connected = True
            until(lambda: http.post("/search", **asked).status_code == 200)
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
